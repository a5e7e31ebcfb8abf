import type { Digest } from '../../oci/digest.ts';

/** Pieces remembered per stream: more than an asker has under way when it looks at one of them. */
const REMEMBERED_MAX = 64;

/** The pieces sent last on one stream. */
export class SentPieces {
  readonly #sent = new Set<string>();

  has(digest: Digest, index: number): boolean {
    return this.#sent.has(`${digest} ${index}`);
  }

  add(digest: Digest, index: number): void {
    const key = `${digest} ${index}`;
    this.#sent.delete(key);
    this.#sent.add(key);
    for (const oldest of this.#sent) {
      if (this.#sent.size <= REMEMBERED_MAX) break;
      this.#sent.delete(oldest);
    }
  }
}
