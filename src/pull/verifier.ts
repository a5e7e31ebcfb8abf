import { createHash } from 'node:crypto';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { pieceLength } from '../piece/layout.ts';
import { type PieceList, pieceDigest } from '../piece/piece-list.ts';
import type { UnverifiedPiece } from '../piece/source.ts';
import type { VerifiedPiece } from '../piece/verified-piece.ts';
import { PULL_LIMITS } from './pull-config.ts';

/**
 * Checks pieces; the one place where a `VerifiedPiece` is made. Shared by all sessions, because it hashes one piece at a time: on
 * this thread in slices of 1 MiB, one slice per turn of the event loop. That blocks it for 0.7 ms at a time (many pieces at once would
 * add up within a turn: 34 ms measured with 16) and costs 2.8 ms of CPU per piece. `crypto.subtle` leaves the loop no freer, for it
 * copies its input here first, and costs a third more CPU.
 */
export class Verifier {
  /** Ends with the piece that came last; as long as pieces in flight are bounded, so is this queue. */
  #tail: Promise<unknown> = Promise.resolve();

  /** The piece with its digest, or `undefined` when index, length or SHA-256 disagree with the list. Keeps the order of the calls. */
  verify(
    piece: UnverifiedPiece,
    index: number,
    list: PieceList,
  ): Promise<VerifiedPiece | undefined> {
    const verified = this.#tail.then(() => verifyPiece(piece, index, list));
    this.#tail = verified.catch(() => undefined); // one failure is its caller's, not the next one's
    return verified;
  }
}

async function verifyPiece(
  piece: UnverifiedPiece,
  index: number,
  list: PieceList,
): Promise<VerifiedPiece | undefined> {
  const { bytes } = piece;
  if (piece.index !== index || bytes.length !== pieceLength(list.size_bytes, index)) {
    return undefined;
  }
  const hash = createHash('sha256');
  const slice = PULL_LIMITS.hash_slice_bytes;
  for (let at = 0; at < bytes.length; at += slice) {
    // Small blobs are in a hurry and cost next to nothing.
    if (bytes.length > slice) await nextTurn();
    hash.update(bytes.subarray(at, at + slice));
  }
  const sha256: Uint8Array = hash.digest();
  if (Buffer.compare(sha256, pieceDigest(list, index)) !== 0) return undefined;
  return { index, bytes, sha256 } as VerifiedPiece;
}
