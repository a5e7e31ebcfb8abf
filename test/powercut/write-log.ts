// The log of a disk: every write and every flush, in the order the disk acknowledged them.
import { readSync, writeSync } from 'node:fs';

/** A write of `length` bytes at `offset` of the disk, or a flush of everything before it. */
export interface LogEntry {
  readonly kind: 'write' | 'flush';
  /** When it was acknowledged, in ms of the system's clock. */
  readonly at_ms: number;
  readonly offset: number;
  readonly length: number;
  /** Where in the log the bytes lie. */
  readonly data: number;
}

const HEADER_BYTES = 32;
const WRITE = 1;
const FLUSH = 2;

/** Appends an entry to the log file `fd`. */
export function appendEntry(fd: number, offset: number, data: Uint8Array | undefined): void {
  const header = Buffer.alloc(HEADER_BYTES);
  header.writeUInt32LE(data === undefined ? FLUSH : WRITE, 0);
  header.writeUInt32LE(data?.length ?? 0, 4);
  header.writeDoubleLE(Date.now(), 8);
  header.writeBigUInt64LE(BigInt(offset), 16);
  writeSync(fd, data === undefined ? header : Buffer.concat([header, data]));
}

/** All entries of the log file `fd` that are whole; the bytes stay in the file. */
export function readEntries(fd: number): readonly LogEntry[] {
  const entries: LogEntry[] = [];
  const header = Buffer.alloc(HEADER_BYTES);
  for (let at = 0; readSync(fd, header, 0, HEADER_BYTES, at) === HEADER_BYTES; ) {
    const length = header.readUInt32LE(4);
    const data = at + HEADER_BYTES;
    entries.push({
      kind: header.readUInt32LE(0) === FLUSH ? 'flush' : 'write',
      at_ms: header.readDoubleLE(8),
      offset: Number(header.readBigUInt64LE(16)),
      length,
      data,
    });
    at = data + length;
  }
  return entries;
}
