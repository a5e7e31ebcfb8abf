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
import { MAX_LIST_BODY_BYTES, QUICK_BYTES, WIRE_VERSION } from '../ground/limits.ts';

/** Fixed request: version, kind, algorithm, patience in 100 ms, id, index, length (32 bits each), digest (64 bytes, zero-filled). */
export const REQUEST_BYTES = 80;
/** Fixed response header: version, kind, status, 0, id, length, retry-after in ms (32 bits each); `length` raw bytes follow. */
export const RESPONSE_HEADER_BYTES = 16;
/** Longest patience and longest retry-after that the frames tell, in ms. */
const MAX_PATIENCE_MS = 25_500;
export const MAX_RETRY_AFTER_MS = 60_000;
/** Unit of the patience byte, in ms. The first version sends 0 there and reads past it. */
const PATIENCE_STEP_MS = 100;

const KINDS = ['piece', 'list', 'cancel'] as const;
const ALGORITHMS = ['sha256', 'sha384', 'sha512'] as const satisfies readonly DigestAlgorithm[];
const ALGORITHM_BYTES = { sha256: 32, sha384: 48, sha512: 64 } as const;
const STATUSES = ['ok', 'not_found', 'busy', 'error', 'unsupported'] as const;
const LIST_SIZE_BYTES = 8;

/** `unsupported` goes only to who asked for something unknown here, so the first version, which does not know the word, never hears it. */
export type PieceStatus = (typeof STATUSES)[number];
export type PieceRequest =
  /** `length` is what the asker expects: a holder whose piece has another length answers `not_found`. */
  | {
      readonly kind: 'piece';
      readonly id: number;
      readonly digest: Digest;
      readonly index: number;
      readonly length: number;
      /** How long the asker waits for the first byte, in ms, in steps of 100; absent or 0 = it does not say. */
      readonly patience_ms?: number;
    }
  | {
      readonly kind: 'list';
      readonly id: number;
      readonly digest: Digest;
      readonly max_pieces: number;
      readonly patience_ms?: number;
    }
  /** The asker gave up: skip the request if it has not begun. */
  | { readonly kind: 'cancel'; readonly id: number };
/** A request of a later version: a kind, an algorithm or a piece length that is not known here. `code` is its kind on the wire. */
export type UnknownRequest = {
  readonly kind: 'unknown';
  readonly id: number;
  readonly code: number;
};
export type PieceResponse = {
  readonly kind: 'piece' | 'list';
  readonly status: PieceStatus;
  readonly id: number;
  /** Bytes that follow; 0 unless ok. */
  readonly length: number;
  /** Of `busy`: when to ask again, 1..60000 ms from now; absent or 0 = not said. */
  readonly retry_after_ms?: number;
};

export function encodeRequest(request: PieceRequest): Uint8Array {
  const frame = new Uint8Array(REQUEST_BYTES);
  const view = new DataView(frame.buffer);
  frame[0] = WIRE_VERSION;
  frame[1] = KINDS.indexOf(request.kind) + 1;
  view.setUint32(4, request.id);
  if (request.kind === 'cancel') return frame;
  frame[2] = ALGORITHMS.indexOf(algorithmOf(request.digest));
  frame[3] = Math.round(Math.min(request.patience_ms ?? 0, MAX_PATIENCE_MS) / PATIENCE_STEP_MS);
  view.setUint32(8, request.kind === 'piece' ? request.index : 0);
  view.setUint32(12, request.kind === 'piece' ? request.length : request.max_pieces);
  frame.set(Buffer.from(hexOf(request.digest), 'hex'), 16);
  return frame;
}

/** What this version does not know is no fault but `unknown`. `protocol_error` (`reason: 'protocol_version'`) for another wire version. */
export function decodeRequest(frame: Uint8Array): PieceRequest | UnknownRequest {
  checkVersion(frame);
  const view = new DataView(frame.buffer, frame.byteOffset, frame.byteLength);
  const kind = KINDS[frame[1]! - 1];
  const id = view.getUint32(4);
  if (kind === 'cancel') return { kind, id };
  const algorithm = ALGORITHMS[frame[2]!];
  const unknown = { kind: 'unknown', id, code: frame[1]! } as const;
  if (kind === undefined || algorithm === undefined) return unknown;
  const patience_ms = frame[3]! * PATIENCE_STEP_MS;
  const hex = Buffer.from(frame.subarray(16, 16 + ALGORITHM_BYTES[algorithm])).toString('hex');
  const digest = parseDigest(`${algorithm}:${hex}`);
  const number = view.getUint32(12);
  if (kind === 'list') return { kind, id, digest, max_pieces: number, patience_ms };
  if (number === 0 || number > PIECE_BYTES) return unknown;
  return { kind, id, digest, index: view.getUint32(8), length: number, patience_ms };
}

export function encodeResponse(response: PieceResponse): Uint8Array {
  const frame = new Uint8Array(RESPONSE_HEADER_BYTES);
  const view = new DataView(frame.buffer);
  frame[0] = WIRE_VERSION;
  frame[1] = KINDS.indexOf(response.kind) + 1;
  frame[2] = STATUSES.indexOf(response.status);
  view.setUint32(4, response.id);
  view.setUint32(8, response.length);
  view.setUint32(12, response.retry_after_ms ?? 0);
  return frame;
}

/** The answer to what this version does not know: the kind goes back as it came. */
export function encodeUnsupported({ id, code }: UnknownRequest): Uint8Array {
  const frame = new Uint8Array(RESPONSE_HEADER_BYTES);
  frame[0] = WIRE_VERSION;
  frame[1] = code;
  frame[2] = STATUSES.indexOf('unsupported');
  new DataView(frame.buffer).setUint32(4, id);
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
  // The first version leaves zeros there; what a later one may put beside other answers is read past.
  const retry_after_ms = status === 'busy' ? Math.min(view.getUint32(12), MAX_RETRY_AFTER_MS) : 0;
  return { kind, status, id: view.getUint32(4), length, retry_after_ms };
}

/** True for what is answered without an upload slot and travels on the quick stream: lists and small pieces. */
export function isQuick(request: Exclude<PieceRequest, { kind: 'cancel' }>): boolean {
  return request.kind === 'list' || request.length <= QUICK_BYTES;
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
