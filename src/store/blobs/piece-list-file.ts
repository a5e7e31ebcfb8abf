import { createHash } from 'node:crypto';
import type { Digest } from '../../oci/digest.ts';
import { MAX_BLOB_BYTES, pieceCount } from '../../piece/layout.ts';
import { PIECE_DIGEST_BYTES } from '../../piece/piece-list.ts';

/**
 * The stored form of a piece list. All numbers are little-endian.
 * `magic[8] version:u32 count:u32 size:u64 mtime_ns:u64 ino:u64 digests[count * 32] check[32]`, where `check` is the sha256 of
 * the blob's digest text and of everything before it: a torn, damaged or misplaced file never passes.
 */
const MAGIC = Buffer.from('lswpiece');
const VERSION = 1;
const HEADER_BYTES = 40;
const CHECK_BYTES = 32;

/** Longest file there can be: the list of a 1 TiB blob. */
export const MAX_LIST_FILE_BYTES =
  HEADER_BYTES + CHECK_BYTES + pieceCount(MAX_BLOB_BYTES) * PIECE_DIGEST_BYTES;

/** A list and the identity of the file it was computed on. */
export type StoredList = {
  readonly size_bytes: number;
  readonly mtime_ns: bigint;
  readonly ino: bigint;
  readonly digests: Uint8Array;
};

/** The file's content for the list of `digest`. */
export function encodeListFile(digest: Digest, list: StoredList): Uint8Array {
  const body = Buffer.alloc(HEADER_BYTES + list.digests.length);
  MAGIC.copy(body);
  body.writeUInt32LE(VERSION, 8);
  body.writeUInt32LE(list.digests.length / PIECE_DIGEST_BYTES, 12);
  body.writeBigUInt64LE(BigInt(list.size_bytes), 16);
  body.writeBigUInt64LE(BigInt.asUintN(64, list.mtime_ns), 24);
  body.writeBigUInt64LE(BigInt.asUintN(64, list.ino), 32);
  body.set(list.digests, HEADER_BYTES);
  return Buffer.concat([body, check(digest, body)]);
}

/** Reads any bytes; undefined unless they are a whole and sound file for `digest`. Never throws. */
export function decodeListFile(digest: Digest, file: Uint8Array): StoredList | undefined {
  const bytes = Buffer.from(file.buffer, file.byteOffset, file.byteLength);
  if (bytes.length < HEADER_BYTES + CHECK_BYTES) return undefined;
  if (!bytes.subarray(0, 8).equals(MAGIC) || bytes.readUInt32LE(8) !== VERSION) return undefined;
  const count = bytes.readUInt32LE(12);
  const size = bytes.readBigUInt64LE(16);
  if (size > BigInt(MAX_BLOB_BYTES) || pieceCount(Number(size)) !== count) return undefined;
  const end = HEADER_BYTES + count * PIECE_DIGEST_BYTES;
  if (bytes.length !== end + CHECK_BYTES) return undefined;
  if (!check(digest, bytes.subarray(0, end)).equals(bytes.subarray(end))) return undefined;
  return {
    size_bytes: Number(size),
    mtime_ns: BigInt.asIntN(64, bytes.readBigUInt64LE(24)),
    ino: bytes.readBigUInt64LE(32),
    digests: new Uint8Array(bytes.subarray(HEADER_BYTES, end)),
  };
}

function check(digest: Digest, body: Uint8Array): Buffer {
  return createHash('sha256').update(digest).update(body).digest();
}
