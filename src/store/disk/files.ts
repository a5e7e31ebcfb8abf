import * as fs from 'node:fs';
import { promisify } from 'node:util';

/** What tells one file from another, whatever its name: a path may point elsewhere by the time it is used. */
export type FileIdentity = {
  readonly dev: bigint;
  readonly ino: bigint;
  readonly size_bytes: number;
  readonly mtime_ns: bigint;
  readonly is_file: boolean;
};

/**
 * Every file operation of the way a blob is written, one method for one system call: the seam at which tests let each of them fail.
 * Descriptors are plain numbers and belong to whoever opened them. Methods named `…Now` are synchronous, for the moments in which
 * nothing else may happen in between; all others wait in libuv's thread pool. Errors are the system's own, with their `code`.
 */
export interface Files {
  open(path: string, flags: string | number, mode?: number): Promise<number>;
  close(fd: number): Promise<void>;
  read(fd: number, into: Uint8Array, position: number): Promise<number>;
  write(fd: number, bytes: Uint8Array, position: number): Promise<number>;
  /** fsync of a file or a directory. */
  sync(fd: number): Promise<void>;
  truncate(fd: number, size_bytes: number): Promise<void>;
  /** Sets the mode of an open file. */
  chmod(fd: number, mode: number): Promise<void>;
  /** Sets both times of an open file, in seconds since the epoch. */
  utimes(fd: number, seconds: number): Promise<void>;
  /** With this very mode, whatever the process's umask. */
  mkdir(path: string, mode: number): Promise<void>;
  writeFile(path: string, content: string): Promise<void>;
  rename(from: string, to: string): Promise<void>;
  /** Removes a file or a whole directory; missing is fine. */
  remove(path: string): Promise<void>;
  /** Shares blocks where the file system can; fails where it cannot. */
  clone(from: string, to: string): Promise<void>;
  identityNow(fd: number): FileIdentity;
  /** Undefined when there is nothing of that name. */
  lookNow(path: string): FileIdentity | undefined;
  renameNow(from: string, to: string): void;
}

const open = promisify(fs.open);
const close = promisify(fs.close);
const read = promisify(fs.read);
const write = promisify(fs.write);
const fsync = promisify(fs.fsync);
const ftruncate = promisify(fs.ftruncate);
const fchmod = promisify(fs.fchmod);
const futimes = promisify(fs.futimes);
const { chmod, mkdir, writeFile, rename, rm, copyFile } = fs.promises;

/** The operating system's files. */
export const systemFiles: Files = {
  open: (path, flags, mode) => open(path, flags, mode),
  close: (fd) => close(fd),
  read: async (fd, into, position) => (await read(fd, into, 0, into.length, position)).bytesRead,
  write: async (fd, bytes, position) =>
    (await write(fd, bytes, 0, bytes.length, position)).bytesWritten,
  sync: (fd) => fsync(fd),
  truncate: (fd, size_bytes) => ftruncate(fd, size_bytes),
  chmod: (fd, mode) => fchmod(fd, mode),
  utimes: (fd, seconds) => futimes(fd, seconds, seconds),
  mkdir: async (path, mode) => {
    await mkdir(path, { recursive: true, mode });
    await chmod(path, mode);
  },
  writeFile: (path, content) => writeFile(path, content),
  rename: (from, to) => rename(from, to),
  remove: (path) => rm(path, { recursive: true, force: true }),
  clone: (from, to) => copyFile(from, to, fs.constants.COPYFILE_FICLONE_FORCE),
  identityNow: (fd) => identityOf(fs.fstatSync(fd, { bigint: true })),
  lookNow: (path) => {
    const found = fs.statSync(path, { bigint: true, throwIfNoEntry: false });
    return found && identityOf(found);
  },
  renameNow: (from, to) => fs.renameSync(from, to),
};

function identityOf(stats: fs.BigIntStats): FileIdentity {
  return {
    dev: stats.dev,
    ino: stats.ino,
    size_bytes: Number(stats.size),
    mtime_ns: stats.mtimeNs,
    is_file: stats.isFile(),
  };
}

/** True when both are the same file on the disk, whatever has been written to it in between. */
export function isSameFile(a: FileIdentity, b: FileIdentity | undefined): boolean {
  return b !== undefined && a.dev === b.dev && a.ino === b.ino;
}

/** Writes all of `bytes` at `position`, over as many system calls as that takes. Lent bytes. */
export async function writeAt(
  files: Pick<Files, 'write'>,
  fd: number,
  bytes: Uint8Array,
  position: number,
): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    done += await files.write(fd, bytes.subarray(done), position + done);
  }
}

/** Fills `buffer` from `position`; gives the part of it that was filled, all of it but at the end of the file. */
export async function readInto(
  files: Pick<Files, 'read'>,
  fd: number,
  buffer: Uint8Array,
  position: number,
): Promise<Uint8Array> {
  let done = 0;
  while (done < buffer.length) {
    const count = await files.read(fd, buffer.subarray(done), position + done);
    if (count === 0) break;
    done += count;
  }
  return done === buffer.length ? buffer : buffer.subarray(0, done);
}

/** Up to `length` bytes at `position` in a fresh buffer; fewer only at the end of the file. */
export function readAt(
  files: Pick<Files, 'read'>,
  fd: number,
  length: number,
  position: number,
): Promise<Uint8Array> {
  // Plain memory, not Buffer's shared pool: callers keep these views. Not cleared: what is not read is not handed out.
  return readInto(files, fd, Buffer.allocUnsafeSlow(length), position);
}

/** Lets everything else that is due run once. Long work calls it between slices. */
export function breathe(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
