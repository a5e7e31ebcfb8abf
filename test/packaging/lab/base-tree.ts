// Root trees of whole Debian suites, made once by debootstrap and kept in the test cache; hosts only read them.
import { access, mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { debianEntry, readAptEntries } from '../../host/lab/apt-mirror.ts';
import { DEBIAN_KEYRING, cacheDir, ensurePrograms } from '../../host/lab/debian-packages.ts';
import { withFileLock } from '../../host/lab/file-lock.ts';
import { runCommand } from '../../host/lab/run-command.ts';

/** Debian suites that are booted: trixie carries containerd 1.7 and systemd 257, bookworm 1.6 and 252. */
export type BootedSuite = 'trixie' | 'bookworm';

/** Raised when the same suite would give another tree than before. */
const SCHEMA = 1;
/**
 * Beyond debootstrap's minimum: what boots, the suite's own containerd, what our package depends on and recommends
 * (booted hosts have no way out), rpm as the second package manager, and procps to look at processes.
 */
const PACKAGES = [
  ...['systemd', 'systemd-sysv', 'dbus', 'init-system-helpers', 'iproute2', 'procps'],
  ...['containerd', 'runc', 'isal', 'pigz', 'libstdc++6', 'libgcc-s1', 'rpm'],
];
/** 80 s on two busy cores; this is for bad days of the mirror. */
const DEADLINE_MS = 10 * 60_000;

const TOOLS = { debootstrap: 'debootstrap', 'systemd-nspawn': 'systemd-container' };

/**
 * Directory of the suite's tree; from the cache without any network when it is there, which must not be written to. It has
 * no host name, machine id, resolver or package lists. Installs debootstrap and systemd-container when they are missing.
 */
export async function baseTree(suite: BootedSuite): Promise<string> {
  await ensurePrograms(TOOLS);
  const dir = join(cacheDir(), 'booted');
  await mkdir(dir, { recursive: true });
  const tree = join(dir, suite);
  const stamp = JSON.stringify({ schema: SCHEMA, packages: PACKAGES });
  return withFileLock(join(dir, 'lock'), DEADLINE_MS * 2, async () => {
    const found = await readFile(`${tree}.json`, 'utf8').catch(() => '');
    if (found !== stamp || !(await isTree(tree))) {
      await makeTree(suite, tree);
      await writeFile(`${tree}.json`, stamp);
    }
    return tree;
  });
}

async function makeTree(suite: BootedSuite, tree: string): Promise<void> {
  const entry = debianEntry(await readAptEntries());
  if (entry === undefined)
    throw new Error(
      "this machine's apt configuration has no Debian main entry to make root trees from; add one to /etc/apt/sources.list.d",
    );
  process.stderr.write(`layerswarm: making a root tree of Debian ${suite} (once, about 90 s)\n`);
  const work = `${tree}.new`;
  for (const path of [work, tree]) await rm(path, { recursive: true, force: true });
  const keyring = (await isThere(DEBIAN_KEYRING)) ? DEBIAN_KEYRING : entry.signedBy;
  const bound = keyring === undefined ? [] : [`--keyring=${keyring}`];
  const make = ['debootstrap', '--variant=minbase', ...bound, `--include=${PACKAGES.join(',')}`];
  // What debootstrap mounts while it works goes with the namespace, however it ends.
  const apart = ['unshare', '--mount', '--propagation', 'private', '--', 'nice', '-n', '15'];
  await runCommand([...apart, ...make, suite, work, entry.uri], { deadline_ms: DEADLINE_MS }).catch(
    (cause: unknown) => {
      const hint = `see ${work}/debootstrap/debootstrap.log`;
      throw new Error(`no root tree of Debian ${suite}: debootstrap failed, ${hint}`, { cause });
    },
  );
  for (const path of ['etc/hostname', 'etc/resolv.conf', 'var/lib/apt/lists'])
    await rm(join(work, path), { recursive: true, force: true });
  await mkdir(join(work, 'var/lib/apt/lists/partial'), { recursive: true });
  await runCommand(['chroot', work, 'apt-get', 'clean']);
  // Empty, not missing: a missing one means "first boot", and the first boot resets which units are enabled.
  await writeFile(join(work, 'etc/machine-id'), '');
  await rename(work, tree);
}

async function isTree(tree: string): Promise<boolean> {
  return isThere(join(tree, 'usr/bin/containerd'));
}

async function isThere(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}
