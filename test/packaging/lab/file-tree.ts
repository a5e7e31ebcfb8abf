// What lies on a booted host's disk, to compare before and after.
import type { BootedHost } from './booted-host.ts';

/** Path -> kind, mode, owner, link target, and for files size and digest. */
export type FileTree = ReadonlyMap<string, string>;

const ROOTS = ['/etc', '/usr', '/var', '/run', '/opt', '/root', '/home', '/srv'];
/**
 * What the package managers, systemd and containerd write on their own account: logs, their databases and caches, and run-time
 * state. Whatever carries our name counts wherever it lies, so these are left out by place, never by name.
 */
const NOT_OURS = [
  /^\/var\/lib\/dpkg\//,
  /^\/var\/lib\/rpm(\/|$)/,
  /^\/root\/\.rpmdb(\/|$)/,
  /^\/var\/lib\/apt\//,
  /^\/var\/cache\/(apt|debconf|ldconfig|man)(\/|$)/,
  /^\/var\/log\//,
  /^\/var\/lib\/systemd\/(random-seed|timers|catalog|coredump|linger|timesync)/,
  /^\/var\/lib\/containerd(\/|$)/,
  /^\/var\/tmp\//,
  /^\/run\//,
  /^\/etc\/(ld\.so\.cache|mtab|resolv\.conf)$/,
];
const OURS = /layerswarm/;
/** In places of others that name is still ours: dpkg's file lists, systemd's state, journals of units. */
const RECORDS =
  /^\/var\/(lib\/(dpkg\/(status|available|lock|triggers|.*-old)|rpm|apt)|log|cache\/apt)(\/|$|-)/;

/** Reads the tree; digests are computed inside. */
export async function fileTree(host: BootedHost): Promise<FileTree> {
  const script = `
    find ${ROOTS.join(' ')} -xdev ! -type f -printf '%p\\t%y %m %U:%G %l\\n'
    find ${ROOTS.join(' ')} -xdev -type f -printf '%p\\t%y %m %U:%G %s\\n'
    echo ===
    find /etc /var /opt /root -xdev -type f ! -path '/var/lib/containerd/*' ! -path '/var/log/*' -exec sha256sum {} +`;
  const [list = '', digests = ''] = (await host.sh(script)).split('\n===\n');
  const tree = new Map<string, string>();
  for (const line of list.split('\n')) {
    const [path, facts] = line.split('\t');
    if (path !== undefined && facts !== undefined && counts(path)) tree.set(path, facts);
  }
  for (const line of digests.split('\n')) {
    const [digest, path] = line.split(/ +/, 2);
    const facts = tree.get(path ?? '');
    if (path !== undefined && facts !== undefined) tree.set(path, `${facts} ${digest}`);
  }
  return tree;
}

/** Differences, one a line: `+ path`, `- path`, `~ path: before -> after`. Empty when there is none. */
export function differences(before: FileTree, after: FileTree): string[] {
  const lines: string[] = [];
  for (const [path, facts] of after) {
    const was = before.get(path);
    if (was === undefined) lines.push(`+ ${path}`);
    else if (was !== facts) lines.push(`~ ${path}: ${was} -> ${facts}`);
  }
  for (const path of before.keys()) if (!after.has(path)) lines.push(`- ${path}`);
  return lines.toSorted();
}

function counts(path: string): boolean {
  if (RECORDS.test(path)) return false;
  return OURS.test(path) || !NOT_OURS.some((place) => place.test(path));
}
