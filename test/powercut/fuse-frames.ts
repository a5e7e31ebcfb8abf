// As much of the kernel's FUSE protocol (include/uapi/linux/fuse.h, 7.31) as one regular file needs. Numbers are little-endian
// as on every machine this runs on.

/** Longest data of one read or write, in bytes; what the kernel takes at most with its default `max_pages_limit`. */
const MAX_DATA_BYTES = 1024 * 1024;
/** The kernel refuses to read a request into less than this. */
export const REQUEST_BYTES = MAX_DATA_BYTES + 4096;

/** Operations this file system answers; all others get `ENOSYS`. */
const OPCODES = {
  2: 'forget',
  3: 'getattr',
  14: 'open',
  15: 'read',
  16: 'write',
  17: 'statfs',
  18: 'release',
  20: 'fsync',
  25: 'flush',
  26: 'init',
  36: 'interrupt',
  38: 'destroy',
  42: 'batch_forget',
} as const satisfies Readonly<Record<number, string>>;

type Operation = (typeof OPCODES)[keyof typeof OPCODES];

/** One request; `body` is a view into the buffer it was read into, valid until the next read. */
export interface FuseRequest {
  /** Undefined for an operation that is not answered here. */
  readonly operation: Operation | undefined;
  readonly unique: bigint;
  readonly body: Buffer;
}

/** Where data goes or comes from. */
export interface DataRange {
  readonly offset: number;
  readonly length: number;
}

const IN_HEADER_BYTES = 40;
const OUT_HEADER_BYTES = 16;
const RANGE_BYTES = 40;
const MAJOR = 7;
const MINOR = 31;
/** FUSE_ASYNC_READ, FUSE_BIG_WRITES and FUSE_MAX_PAGES. */
const FEATURES = 0x1 | 0x20 | 0x40_0000;
/** No page cache between the loop device and us: a write is here when it is acknowledged. */
const FOPEN_DIRECT_IO = 1;
const REGULAR_FILE = 0o100600;
const ONE_HOUR_S = 3600n;

/** Reads the header of a request of `length` bytes in `buffer`. */
export function parseRequest(buffer: Buffer, length: number): FuseRequest {
  const opcode = buffer.readUInt32LE(4);
  return {
    operation: (OPCODES as Readonly<Record<number, Operation>>)[opcode],
    unique: buffer.readBigUInt64LE(8),
    body: buffer.subarray(IN_HEADER_BYTES, length),
  };
}

/** The range of a `read` or `write`. */
export function parseRange(body: Buffer): DataRange {
  return { offset: Number(body.readBigUInt64LE(8)), length: body.readUInt32LE(16) };
}

/** The bytes of a `write`. */
export function parseData(body: Buffer): Buffer {
  const { length } = parseRange(body);
  return body.subarray(RANGE_BYTES, RANGE_BYTES + length);
}

/** An answer with a body. */
export function answer(unique: bigint, body: Uint8Array = Buffer.alloc(0)): Buffer {
  return Buffer.concat([outHeader(unique, body.length, 0), body]);
}

/** An answer with an error number (positive). */
export function refusal(unique: bigint, errno: number): Buffer {
  return outHeader(unique, 0, -errno);
}

/** What `init` answers. */
export function initBody(request: Buffer): Buffer {
  const body = Buffer.alloc(64);
  body.writeUInt32LE(MAJOR, 0);
  body.writeUInt32LE(MINOR, 4);
  // As far as the kernel wants to read ahead.
  body.writeUInt32LE(request.readUInt32LE(8), 8);
  body.writeUInt32LE(FEATURES, 12);
  body.writeUInt16LE(16, 16);
  body.writeUInt16LE(12, 18);
  body.writeUInt32LE(MAX_DATA_BYTES, 20);
  body.writeUInt32LE(1, 24);
  body.writeUInt16LE(MAX_DATA_BYTES / 4096, 28);
  return body;
}

/** What `getattr` answers for a file of `size` bytes. */
export function attributesBody(size: number): Buffer {
  const body = Buffer.alloc(104);
  body.writeBigUInt64LE(ONE_HOUR_S, 0);
  body.writeBigUInt64LE(1n, 16);
  body.writeBigUInt64LE(BigInt(size), 24);
  body.writeBigUInt64LE(BigInt(size / 512), 32);
  body.writeUInt32LE(REGULAR_FILE, 76);
  body.writeUInt32LE(1, 80);
  body.writeUInt32LE(4096, 96);
  return body;
}

/** What `open` answers. */
export function openBody(): Buffer {
  const body = Buffer.alloc(16);
  body.writeUInt32LE(FOPEN_DIRECT_IO, 8);
  return body;
}

/** What `write` answers. */
export function writtenBody(length: number): Buffer {
  const body = Buffer.alloc(8);
  body.writeUInt32LE(length, 0);
  return body;
}

/** What `statfs` answers: a file system of 4 KiB blocks, nothing else. */
export function statfsBody(): Buffer {
  const body = Buffer.alloc(80);
  body.writeUInt32LE(4096, 40);
  body.writeUInt32LE(255, 44);
  body.writeUInt32LE(4096, 48);
  return body;
}

function outHeader(unique: bigint, length: number, error: number): Buffer {
  const header = Buffer.alloc(OUT_HEADER_BYTES);
  header.writeUInt32LE(OUT_HEADER_BYTES + length, 0);
  header.writeInt32LE(error, 4);
  header.writeBigUInt64LE(unique, 8);
  return header;
}
