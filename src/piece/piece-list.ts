import type { Digest } from '../oci/digest.ts';
import { pieceCount } from './layout.ts';

/** Bytes of one piece digest (SHA-256). */
export const PIECE_DIGEST_BYTES = 32;

/**
 * SHA-256 of every piece of a blob, in order. From a peer it is a claim (`ClaimedPieceList`): only the digest of the
 * whole blob can prove it. The store hands out `PieceList`s it computed itself while it hashed the blob.
 */
export type PieceList = {
  readonly digest: Digest;
  readonly size_bytes: number;
  /** `pieceCount(size_bytes)` digests of 32 bytes, back to back. */
  readonly digests: Uint8Array;
};

/** The digest of piece `index`, a view into the list. */
export function pieceDigest(list: Pick<PieceList, 'digests'>, index: number): Uint8Array {
  return list.digests.subarray(index * PIECE_DIGEST_BYTES, (index + 1) * PIECE_DIGEST_BYTES);
}

/** True when the list has exactly as many digests as the blob has pieces. */
export function isWellFormed(list: PieceList): boolean {
  return (
    Number.isSafeInteger(list.size_bytes) &&
    list.size_bytes >= 0 &&
    list.digests.length === pieceCount(list.size_bytes) * PIECE_DIGEST_BYTES
  );
}
