import { DaemonError } from '../../base/errors.ts';
import {
  type Digest,
  type DigestAlgorithm,
  algorithmOf,
  hexOf,
  parseDigest,
} from '../../oci/digest.ts';
import { MAX_BLOB_BYTES, PIECE_BYTES, pieceCount } from '../../piece/layout.ts';
import { PIECE_DIGEST_BYTES, type PieceList } from '../../piece/piece-list.ts';
import { MAX_LIST_BODY_BYTES, WIRE_VERSION } from '../ground/limits.ts';

/** Fixed request: version, kind, algorithm, 0, id, index, length (32 bits each), digest (64 bytes, zero-filled). */
export const REQUEST_BYTES = 80;
/** Fixed response header: version, kind, status, 0, id, length, 0 (32 bits each); `length` raw bytes follow. */
export const RESPONSE_HEADER_BYTES = 16;

const KINDS = ['piece', 'list', 'cancel'] as const;
const ALGORITHMS = ['sha256', 'sha384', 'sha512'] as const satisfies readonly DigestAlgorithm[];
const ALGORITHM_BYTES = { sha256: 32, sha384: 48, sha512: 64 } as const;
const STATUSES = ['ok', 'not_found', 'busy', 'error'] as const;
const LIST_SIZE_BYTES = 8;

export type PieceStatus = (typeof STATUSES)[number];
export type PieceRequest =
  /** `length` is what the asker expects: a holder whose piece has another length answers `not_found`. */
  | {
      readonly kind: 'piece';
      readonly id: number;
      readonly digest: Digest;
      readonly index: number;
      readonly length: number;
    }
  | {
      readonly kind: 'list';
      readonly id: number;
      readonly digest: Digest;
      readonly max_pieces: number;
    }
  /** The asker gave up: skip the request if it has not begun. */
  | { readonly kind: 'cancel'; readonly id: number };
export type PieceResponse = {
  readonly kind: 'piece' | 'list';
  readonly status: PieceStatus;
  readonly id: number;
  /** Bytes that follow; 0 unless ok. */
  readonly length: number;
};

export function encodeRequest(request: PieceRequest): Uint8Array {
  const frame = new Uint8Array(REQUEST_BYTES);
  const view = new DataView(frame.buffer);
  frame[0] = WIRE_VERSION;
  frame[1] = KINDS.indexOf(request.kind) + 1;
  view.setUint32(4, request.id);
  if (request.kind === 'cancel') return frame;
  frame[2] = ALGORITHMS.indexOf(algorithmOf(request.digest));
  view.setUint32(8, request.kind === 'piece' ? request.index : 0);
  view.setUint32(12, request.kind === 'piece' ? request.length : request.max_pieces);
  frame.set(Buffer.from(hexOf(request.digest), 'hex'), 16);
  return frame;
}

/** `protocol_error` for another version, an unknown kind or algorithm, or a length beyond a piece. */
export function decodeRequest(frame: Uint8Array): PieceRequest {
  checkVersion(frame);
  const view = new DataView(frame.buffer, frame.byteOffset, frame.byteLength);
  const kind = KINDS[frame[1]! - 1];
  const id = view.getUint32(4);
  if (kind === 'cancel') return { kind, id };
  const algorithm = ALGORITHMS[frame[2]!];
  if (kind === undefined || algorithm === undefined) throw malformed('a request');
  const hex = Buffer.from(frame.subarray(16, 16 + ALGORITHM_BYTES[algorithm])).toString('hex');
  const digest = parseDigest(`${algorithm}:${hex}`);
  const number = view.getUint32(12);
  if (kind === 'list') return { kind, id, digest, max_pieces: number };
  if (number === 0 || number > PIECE_BYTES) throw malformed('a request');
  return { kind, id, digest, index: view.getUint32(8), length: number };
}

export function encodeResponse(response: PieceResponse): Uint8Array {
  const frame = new Uint8Array(RESPONSE_HEADER_BYTES);
  const view = new DataView(frame.buffer);
  frame[0] = WIRE_VERSION;
  frame[1] = KINDS.indexOf(response.kind) + 1;
  frame[2] = STATUSES.indexOf(response.status);
  view.setUint32(4, response.id);
  view.setUint32(8, response.length);
  return frame;
}

/** `protocol_error` for another version, unknown values, or a length no answer of that kind can have. */
export function decodeResponse(header: Uint8Array): PieceResponse {
  checkVersion(header);
  const view = new DataView(header.buffer, header.byteOffset, header.byteLength);
  const kind = KINDS[header[1]! - 1];
  const status = STATUSES[header[2]!];
  const length = view.getUint32(8);
  if ((kind !== 'piece' && kind !== 'list') || status === undefined) throw malformed('an answer');
  const limit = kind === 'piece' ? PIECE_BYTES : MAX_LIST_BODY_BYTES;
  if (status === 'ok' ? length > limit : length !== 0) throw malformed('an answer');
  return { kind, status, id: view.getUint32(4), length };
}

/** Bytes of a list answer for a blob of `pieces` pieces. */
export function listBodyBytes(pieces: number): number {
  return LIST_SIZE_BYTES + pieces * PIECE_DIGEST_BYTES;
}

/** Size (64 bits), then the digests. */
export function encodeList(list: PieceList): Uint8Array {
  const body = new Uint8Array(LIST_SIZE_BYTES + list.digests.length);
  new DataView(body.buffer).setBigUint64(0, BigInt(list.size_bytes));
  body.set(list.digests, LIST_SIZE_BYTES);
  return body;
}

/** `protocol_error` when the number of digests does not fit the size. The digests are a view of the body. */
export function decodeList(digest: Digest, body: Uint8Array): PieceList {
  if (body.length < LIST_SIZE_BYTES) throw malformed('a piece list');
  const view = new DataView(body.buffer, body.byteOffset, body.byteLength);
  const size_bytes = Number(view.getBigUint64(0));
  if (size_bytes > MAX_BLOB_BYTES || body.length !== listBodyBytes(pieceCount(size_bytes))) {
    throw malformed('a piece list');
  }
  return { digest, size_bytes, digests: body.subarray(LIST_SIZE_BYTES) };
}

function checkVersion(frame: Uint8Array): void {
  if (frame[0] !== WIRE_VERSION) {
    throw new DaemonError(
      'protocol_error',
      'the peer speaks another version of the piece protocol',
      {
        reason: 'protocol_version',
        version: frame[0],
      },
    );
  }
}

function malformed(what: string): DaemonError {
  return new DaemonError('protocol_error', `the peer sent ${what} that is malformed`);
}
