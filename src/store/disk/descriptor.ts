import * as fs from 'node:fs';
import { promisify } from 'node:util';

/**
 * File descriptors as plain numbers, because opening must be possible synchronously: while containerd's write
 * transaction waits, an open may not queue behind other blobs' writes in the thread pool.
 */
const write = promisify(fs.write);
const read = promisify(fs.read);

export const closeFile = promisify(fs.close);
export const syncFile = promisify(fs.fsync);
export const truncateFile = promisify(fs.ftruncate);
export const openFile = promisify(fs.open);

/** Writes all of `bytes` at `position`, over as many system calls as that takes. Lent bytes. */
export async function writeAt(fd: number, bytes: Uint8Array, position: number): Promise<void> {
  let done = 0;
  while (done < bytes.length) {
    const { bytesWritten } = await write(fd, bytes, done, bytes.length - done, position + done);
    done += bytesWritten;
  }
}

/** Up to `length` bytes at `position` in a fresh buffer; fewer only at the end of the file. */
export function readAt(fd: number, length: number, position: number): Promise<Uint8Array> {
  // Plain memory, not Buffer's shared pool: callers keep these views. Not cleared: what is not read is not handed out.
  return readInto(fd, Buffer.allocUnsafeSlow(length), position);
}

/** Fills `buffer` from `position`; gives the part of it that was filled, all of it but at the end of the file. */
export async function readInto(
  fd: number,
  buffer: Uint8Array,
  position: number,
): Promise<Uint8Array> {
  const { length } = buffer;
  let done = 0;
  while (done < length) {
    const { bytesRead } = await read(fd, buffer, done, length - done, position + done);
    if (bytesRead === 0) break;
    done += bytesRead;
  }
  return done === length ? buffer : buffer.subarray(0, done);
}

/** fsync of a directory, which makes renames into it durable. */
export async function syncDirectory(path: string): Promise<void> {
  const fd = fs.openSync(path, 'r');
  try {
    await syncFile(fd);
  } finally {
    fs.closeSync(fd);
  }
}

/** Lets everything else that is due run once. Long work calls it between slices. */
export function breathe(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
