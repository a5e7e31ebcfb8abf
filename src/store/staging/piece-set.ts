import { pieceCount } from '../../piece/layout.ts';
import { PIECE_DIGEST_BYTES } from '../../piece/piece-list.ts';

/** Which pieces of a blob are here, and the digest each had when it was written. */
export class PieceSet {
  /** By index; of pieces that are not here, anything. */
  readonly digests: Uint8Array;
  readonly #count: number;
  readonly #have: Uint8Array;
  #size = 0;

  constructor(blob: { readonly size_bytes: number }) {
    this.#count = pieceCount(blob.size_bytes);
    this.digests = new Uint8Array(this.#count * PIECE_DIGEST_BYTES);
    this.#have = new Uint8Array((this.#count >> 3) + 1);
  }

  get size(): number {
    return this.#size;
  }

  get whole(): boolean {
    return this.#size === this.#count;
  }

  has(index: number): boolean {
    return ((this.#have[index >> 3] ?? 0) & (1 << (index & 7))) !== 0;
  }

  /** A piece inside the blob that is not here yet. */
  add(index: number, sha256: Uint8Array): void {
    this.digests.set(sha256, index * PIECE_DIGEST_BYTES);
    this.#have[index >> 3]! |= 1 << (index & 7);
    this.#size += 1;
  }

  /** False when it was not here. */
  delete(index: number): boolean {
    if (!this.has(index)) return false;
    this.#have[index >> 3]! &= ~(1 << (index & 7));
    this.#size -= 1;
    return true;
  }

  /** Only these of the pieces here are left. */
  keep(indexes: readonly number[]): void {
    this.#have.fill(0);
    for (const index of indexes) this.#have[index >> 3]! |= 1 << (index & 7);
    this.#size = indexes.length;
  }

  /** The pieces that are here, from `first` on, in order. */
  from(first: number): number[] {
    const indexes: number[] = [];
    for (let i = first; i < this.#count; i++) if (this.has(i)) indexes.push(i);
    return indexes;
  }
}
