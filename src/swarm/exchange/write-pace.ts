import { MAX_WRITE_BYTES, MIN_WRITE_BYTES } from '../ground/limits.ts';

/** QUIC hands on what has come of a write, so short ones win nothing there and cost CPU; 256 KiB pass a link of 0.4 Mbit/s in time. */
const FIRST_BYTES = { tcp: MIN_WRITE_BYTES, quic: 256 * 1024 } as const;
/** A write that took longer than this, in ms, was too long: its reader sees a TCP frame only when it is whole. */
const SLOW_MS = 100;
/** A write may double when twice its bytes would take no longer than this, in ms. */
const QUICK_MS = 40;
/** So many bytes must have gone at the pace before writes grow: what the kernel takes in before a slow link moves is no pace. */
const PROOF_BYTES = 1024 * 1024;

/**
 * How many bytes to write at once. Long writes are cheap, short ones let the reader see that a slow link moves: 16 KiB on slow ones and
 * to begin with over TCP, up to 1 MiB on fast ones. Measured on loopback over TCP: 432 MB/s with writes of 64 KiB, 664 with 256 KiB and with 4 MiB.
 */
export class WritePace {
  #bytes: number;
  #proved_bytes = 0;

  constructor(transport: 'quic' | 'tcp') {
    this.#bytes = FIRST_BYTES[transport];
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** A write of so many bytes took so long, until the stream wanted more. */
  wrote(bytes: number, ms: number): void {
    if (ms > SLOW_MS) {
      this.#bytes = Math.max(MIN_WRITE_BYTES, this.#bytes / 2);
      this.#proved_bytes = 0;
      return;
    }
    // A shorter one, the end of a piece, tells nothing about a full one.
    if (bytes < this.#bytes) return;
    this.#proved_bytes = ms * 2 <= QUICK_MS ? this.#proved_bytes + bytes : 0;
    if (this.#proved_bytes < PROOF_BYTES) return;
    this.#bytes = Math.min(MAX_WRITE_BYTES, this.#bytes * 2);
    this.#proved_bytes = 0;
  }
}
