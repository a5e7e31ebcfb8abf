import { PIECE_BYTES } from '../../piece/layout.ts';

/** Buffers kept for the next pieces, at most: what two busy peers have in flight. */
const KEPT = 6;

/**
 * Memory for pieces off the wire, used again. V8 counts buffers that nobody holds any more until its next full collection,
 * and starts one for every 64 MB of them; the pieces were half of what a transfer allocates.
 */
export class PieceBuffers {
  readonly #free: Uint8Array[] = [];
  /** Those that somebody has: a buffer given back twice, or not from here, is not taken. */
  readonly #lent = new WeakSet<Uint8Array>();

  /** `length` bytes, not cleared; full pieces come from buffers given back. */
  take(length: number): Uint8Array {
    if (length !== PIECE_BYTES) return Buffer.allocUnsafeSlow(length);
    const buffer = this.#free.pop() ?? Buffer.allocUnsafeSlow(length);
    this.#lent.add(buffer);
    return buffer;
  }

  /** Nobody looks at these bytes any more, now or later. */
  give(bytes: Uint8Array): void {
    if (!this.#lent.delete(bytes) || this.#free.length >= KEPT) return;
    this.#free.push(bytes);
  }
}
