/** Size of every piece but the last: 4 MiB. Large enough that per-piece costs vanish, small enough to move elsewhere within a second. */
export const PIECE_BYTES = 4 * 1024 * 1024;

/** Largest blob we handle in pieces: 1 TiB, which keeps a piece list below 8 MiB. */
export const MAX_BLOB_BYTES = 2 ** 40;

/** Number of pieces of a blob of `size_bytes`; 0 for an empty blob. */
export function pieceCount(size_bytes: number): number {
  return Math.ceil(size_bytes / PIECE_BYTES);
}

/** First byte of piece `index`. */
export function pieceOffset(index: number): number {
  return index * PIECE_BYTES;
}

/** Length of piece `index`; 0 when the index is outside the blob. */
export function pieceLength(size_bytes: number, index: number): number {
  if (index < 0) return 0;
  return Math.max(0, Math.min(PIECE_BYTES, size_bytes - pieceOffset(index)));
}
