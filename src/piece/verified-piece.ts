import type { UnverifiedPiece } from './source.ts';

/**
 * A piece whose SHA-256 agreed with the piece list in use. Made only by `pull/verifier.ts`. The list itself may still be
 * a lie, so a staged blob is published only when its whole digest agrees as well.
 */
export type VerifiedPiece = Omit<UnverifiedPiece, 'release'> & {
  /** SHA-256 of the bytes: 32 bytes, kept for the blob's own piece list. */
  readonly sha256: Uint8Array;
  readonly __brand: 'VerifiedPiece';
};
