import { DaemonError } from '../base/errors.ts';
import type { ReadRequest, ReadResponse } from './messages.ts';

/**
 * ReadContentRequest and ReadContentResponse by hand: containerd sends one Read per 32 KiB of layer when it unpacks, and the payload
 * must not be copied on its way. Field numbers as in `containerd/services/content/v1/content.proto`.
 */

const VARINT = 0;
const FIXED64 = 1;
const LENGTH_DELIMITED = 2;
const FIXED32 = 5;

/** Reads one request. `invalid_argument` when the bytes are no such message or a number exceeds 2^53. */
export function decodeReadRequest(bytes: Uint8Array): ReadRequest {
  const view = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let digest = '';
  let offset = 0;
  let size = 0;
  const cursor = { at: 0 };
  while (cursor.at < view.length) {
    const tag = readVarint(view, cursor);
    const wire = tag % 8;
    const field = (tag - wire) / 8;
    if (field === 0) throw malformed('field 0');
    if (field === 1 && wire === LENGTH_DELIMITED) {
      const end = skip(view, cursor, wire, digestLength);
      digest = view.toString('utf8', end.start, cursor.at);
    } else if (field === 2 && wire === VARINT) offset = readVarint(view, cursor);
    else if (field === 3 && wire === VARINT) size = readVarint(view, cursor);
    else skip(view, cursor, wire);
  }
  return { digest, offset, size };
}

/** Everything of a response before its payload. Offset 0 is not sent, as proto3 has it. */
export function readResponseHead(offset: number, length: number): Uint8Array {
  const head = Buffer.allocUnsafe(20);
  let at = 0;
  if (offset > 0) {
    head[at++] = 0x08;
    at = writeVarint(head, at, offset);
  }
  if (length > 0) {
    head[at++] = 0x12;
    at = writeVarint(head, at, length);
  }
  return head.subarray(0, at);
}

/** A whole response, with one copy of the payload. */
export function encodeReadResponse({ offset, data }: ReadResponse): Uint8Array {
  const head = readResponseHead(offset, data.length);
  const message = Buffer.allocUnsafe(head.length + data.length);
  message.set(head, 0);
  message.set(data, head.length);
  return message;
}

/** Longest digest text that is looked at; the longest valid one has 135 characters. */
const digestLength = 1024;

function skip(
  view: Buffer,
  cursor: { at: number },
  wire: number,
  limit = Number.MAX_SAFE_INTEGER,
): { start: number } {
  let length: number;
  if (wire === VARINT) {
    readVarint(view, cursor);
    length = 0;
  } else if (wire === FIXED64) length = 8;
  else if (wire === FIXED32) length = 4;
  else if (wire === LENGTH_DELIMITED) length = readVarint(view, cursor);
  else throw malformed(`wire type ${wire}`);
  const start = cursor.at;
  if (length < 0 || length > limit || start + length > view.length) throw malformed('a length');
  cursor.at = start + length;
  return { start };
}

/** One 64-bit varint as containerd's int64; negative ones come in ten bytes. */
function readVarint(view: Buffer, cursor: { at: number }): number {
  let low = 0;
  let factor = 1;
  for (let i = 0; i < 7; i++) {
    const byte = view[cursor.at++];
    if (byte === undefined) throw malformed('its end');
    low += (byte & 0x7f) * factor;
    if (byte < 0x80) return low;
    factor *= 128;
  }
  return readLongVarint(view, cursor, low);
}

/** The rare rest of a varint of more than 49 bits. */
function readLongVarint(view: Buffer, cursor: { at: number }, low: number): number {
  let value = BigInt(low);
  for (let shift = 49n; shift < 70n; shift += 7n) {
    const byte = view[cursor.at++];
    if (byte === undefined) throw malformed('its end');
    value |= BigInt(byte & 0x7f) << shift;
    if (byte >= 0x80) continue;
    const signed = Number(BigInt.asIntN(64, value));
    if (Number.isSafeInteger(signed)) return signed;
    throw malformed('a number beyond 2^53');
  }
  throw malformed('a number of more than ten bytes');
}

function writeVarint(into: Uint8Array, start: number, value: number): number {
  let at = start;
  let rest = value;
  while (rest >= 128) {
    into[at++] = (rest % 128) | 0x80;
    rest = Math.floor(rest / 128);
  }
  into[at++] = rest;
  return at;
}

function malformed(what: string): DaemonError {
  return new DaemonError(
    'invalid_argument',
    `ReadContentRequest cannot be decoded: ${what} is out of place`,
  );
}
