import { constants } from 'node:fs';
import { access, stat, statfs } from 'node:fs/promises';
import { errnoOf } from '../../base/errors.ts';
import type { Check } from './context.ts';
import { type Finding, findingOf, type Remark, remark } from './finding.ts';

/** With fewer free bytes than a piece and its neighbours nothing can be written any more. */
const FULL_BYTES = 64 * 1024 * 1024;
/** Fewer free inodes than an image or two has blobs. */
const FEW_INODES = 1_000;

/** A directory as it stands. Bytes and inodes are those free for us; `inodes_free` is undefined where there is no limit. */
export type DirectoryFacts = {
  readonly name: 'content' | 'work' | 'state';
  readonly path: string;
  readonly found:
    | { readonly state: 'missing' }
    | { readonly state: 'no-directory' }
    | { readonly state: 'unreadable'; readonly errno: string }
    | {
        readonly state: 'there';
        readonly device: number;
        readonly free_bytes: number;
        readonly inodes_free: number | undefined;
        /** Why we cannot write: EROFS, EACCES, …; undefined when we can. */
        readonly unwritable: string | undefined;
        /** The same as the running daemon sees it, in its own mount namespace. */
        readonly daemon_unwritable: string | undefined;
      };
};

export type DiskFacts = {
  readonly floor_bytes: number;
  readonly creates_content: boolean;
  readonly directories: readonly DirectoryFacts[];
};

/** Can the daemon write where its blobs and its state lie, and is there room? */
export const diskCheck: Check<DiskFacts> = {
  deadline_ms: 5_000,
  gather: async (context) => {
    const { store } = context.config.config;
    const daemon = await context.daemon();
    const pid = daemon.kind === 'answers' ? daemon.view.pid : undefined;
    const named = [
      ['content', store.content_directory],
      ['work', store.work_directory],
      ['state', store.state_directory],
    ] as const;
    return {
      floor_bytes: store.disk_floor_bytes,
      creates_content: store.create_content_directory,
      directories: await Promise.all(
        named.map(async ([name, path]) => ({ name, path, found: await look(path, pid) })),
      ),
    };
  },
  judge: judgeDisk,
};

async function look(path: string, pid: number | undefined): Promise<DirectoryFacts['found']> {
  try {
    const { dev, isDirectory } = await stat(path).then((s) => ({
      dev: s.dev,
      isDirectory: s.isDirectory(),
    }));
    if (!isDirectory) return { state: 'no-directory' };
    const { bavail, bsize, files, ffree } = await statfs(path);
    return {
      state: 'there',
      device: dev,
      free_bytes: bavail * bsize,
      inodes_free: files === 0 ? undefined : ffree,
      unwritable: await unwritable(path),
      daemon_unwritable: pid === undefined ? undefined : await closedTo(pid, path),
    };
  } catch (error) {
    const errno = errnoOf(error);
    if (errno === undefined) throw error;
    return errno === 'ENOENT' ? { state: 'missing' } : { state: 'unreadable', errno };
  }
}

/**
 * The unit gives the daemon a read-only view of most of the disk, fixed when it started. Other failures than "read-only"
 * and "not there" are about our right to look into another process.
 */
async function closedTo(pid: number, path: string): Promise<string | undefined> {
  const errno = await unwritable(`/proc/${pid}/root${path}`);
  return errno === 'EROFS' || errno === 'ENOENT' ? errno : undefined;
}

async function unwritable(path: string): Promise<string | undefined> {
  return access(path, constants.W_OK).then(
    () => undefined,
    (error: unknown) => errnoOf(error) ?? 'unknown',
  );
}

export function judgeDisk(facts: DiskFacts): Finding {
  const remarks = facts.directories.flatMap((directory) => directoryRemarks(directory, facts));
  const [content, work] = facts.directories.map(({ found }) =>
    found.state === 'there' ? found.device : undefined,
  );
  if (content !== undefined && work !== undefined && content !== work) {
    const path = facts.directories[1]?.path ?? '';
    const text = `${path} is not on the file system of the content directory: finished blobs cannot be moved there`;
    remarks.push(remark('fail', text, 'delete [store] work_directory from the configuration'));
  }
  const free = facts.directories[0]?.found;
  const room = free?.state === 'there' ? `, ${gib(free.free_bytes)} free` : '';
  const fine = `${facts.directories[0]?.path ?? ''} and the state directory can be written${room}`;
  return findingOf('disk', fine, [...new Map(remarks.map((r) => [r.text, r])).values()], {
    floor_bytes: facts.floor_bytes,
    directories: facts.directories.map(({ name, path, found }) => ({ name, path, ...found })),
  });
}

function directoryRemarks({ name, path, found }: DirectoryFacts, facts: DiskFacts): Remark[] {
  if (found.state === 'missing') return missing(name, path, facts);
  if (found.state === 'no-directory') return [remark('fail', `${path} is not a directory`)];
  if (found.state === 'unreadable') {
    const text = `${path} cannot be looked at (${found.errno})`;
    return [remark('fail', text, 'sudo layerswarm doctor')];
  }
  const remarks: Remark[] = [];
  if (found.unwritable === 'EROFS') {
    const text = `${path} is on a file system that is mounted read-only`;
    remarks.push(remark('fail', text, `mount -o remount,rw "$(findmnt -n -o TARGET -T ${path})"`));
  } else if (found.unwritable !== undefined) {
    remarks.push(
      remark('fail', `${path} cannot be written (${found.unwritable})`, 'sudo layerswarm doctor'),
    );
  } else if (found.daemon_unwritable !== undefined) {
    const text = `the daemon cannot write ${path} (${found.daemon_unwritable}): it was not there, or not allowed by the unit, when the daemon started`;
    remarks.push(remark('fail', text, 'layerswarm setup', 'systemctl restart layerswarm.service'));
  }
  // One file system is told once: with the content directory.
  const first = facts.directories[0]?.found;
  const is_told = first?.state === 'there' && first.device === found.device;
  if (name !== 'content' && is_told) return remarks;
  return [...remarks, ...roomRemarks(name, path, found, facts.floor_bytes)];
}

function missing(name: DirectoryFacts['name'], path: string, facts: DiskFacts): Remark[] {
  // The daemon makes its own directories at its first start.
  if (name === 'work') return [];
  if (name === 'state' || facts.creates_content) {
    return [remark('note', `${path} is not there yet; the daemon makes it when it starts`)];
  }
  return [
    remark(
      'fail',
      `the content directory ${path} is not there`,
      'layerswarm setup',
      'systemctl restart layerswarm.service',
    ),
  ];
}

function roomRemarks(
  name: DirectoryFacts['name'],
  path: string,
  found: { readonly free_bytes: number; readonly inodes_free: number | undefined },
  floor_bytes: number,
): Remark[] {
  const { free_bytes, inodes_free } = found;
  const mend = [
    'crictl rmi --prune   # or: ctr images rm NAME',
    'or lower [store] cache_max_bytes in the configuration',
  ];
  const remarks: Remark[] = [];
  if (free_bytes < FULL_BYTES) {
    remarks.push(
      remark('fail', `the disk of ${path} is full: ${gib(free_bytes)} are free`, ...mend),
    );
  } else if (name === 'content' && free_bytes < floor_bytes) {
    const text = `the disk of ${path} has ${gib(free_bytes)} free, below its floor of ${gib(floor_bytes)}: nothing more is cached or announced, pulls go on`;
    remarks.push(remark('warn', text, ...mend));
  }
  if (inodes_free !== undefined && inodes_free < FEW_INODES) {
    const text = `the file system of ${path} has ${inodes_free} inodes left`;
    remarks.push(remark(inodes_free === 0 ? 'fail' : 'warn', text, ...mend));
  }
  return remarks;
}

function gib(bytes: number): string {
  const mib = bytes / 1024 ** 2;
  return mib < 1024 ? `${Math.floor(mib)} MiB` : `${(mib / 1024).toFixed(1)} GiB`;
}
