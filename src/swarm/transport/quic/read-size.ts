/** The native side allocates a whole read before it knows how much there is, and keeps it as long as the bytes live. */
const SMALLEST_BYTES = 16 * 1024;

/**
 * How much the next native read asks for: the full size while data flows (each call costs about 50 us), down to 16 KiB
 * on a stream of small messages, so that a kept message of ten bytes does not keep 256 KiB alive.
 */
export class ReadSize {
  readonly #most: number;
  #bytes: number;

  constructor(mostBytes: number) {
    this.#most = mostBytes;
    this.#bytes = Math.min(SMALLEST_BYTES, mostBytes);
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** Tells how much the read of that size returned. */
  got(bytes: number): void {
    if (bytes * 2 >= this.#bytes) this.#bytes = Math.min(this.#most, this.#bytes * 4);
    else if (bytes * 16 < this.#bytes) {
      this.#bytes = Math.max(Math.min(SMALLEST_BYTES, this.#most), this.#bytes / 2);
    }
  }
}
