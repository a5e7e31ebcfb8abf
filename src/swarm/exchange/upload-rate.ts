import type { Clock } from '../../base/clock.ts';
import { LEAST_UPLOAD_BYTES_PER_SECOND } from '../ground/limits.ts';
import { TokenBucket } from '../ground/token-bucket.ts';

/** A slice is what the limit lets through in this time, in ms: with eight uploads at once each of them moves six times a second. */
const SLICE_MS = 20;
/** Least slice: below it the cost of a slice outweighs its bytes. */
const MIN_SLICE_BYTES = 4096;
/** Let through at once after a pause, in ms of the limit. */
const BURST_MS = 100;

/**
 * The upload limit of this host, for all peers together. Bytes are taken in slices, first come first served, so that all uploads move
 * evenly and the first byte of each waits for one slice of every other, never for a piece.
 */
export class UploadRate {
  readonly #bucket: TokenBucket;
  /** Most bytes to take at once; Infinity without a limit. */
  readonly slice_bytes: number;
  /** How many uploads the limit feeds well; Infinity without a limit. */
  readonly uploads: number;

  constructor(modules: { readonly clock: Clock }, config: { readonly bytes_per_second: number }) {
    const { bytes_per_second } = config;
    const isLimited = bytes_per_second > 0;
    const slice_bytes = Math.ceil((bytes_per_second * SLICE_MS) / 1000);
    this.slice_bytes = isLimited ? Math.max(MIN_SLICE_BYTES, slice_bytes) : Infinity;
    this.uploads = isLimited
      ? Math.max(1, Math.floor(bytes_per_second / LEAST_UPLOAD_BYTES_PER_SECOND))
      : Infinity;
    this.#bucket = new TokenBucket(modules.clock, {
      per_second: bytes_per_second,
      burst: (bytes_per_second * BURST_MS) / 1000,
    });
  }

  /** Waits until `bytes`, at most a slice, may be sent. Rejects with the signal's reason. */
  take(bytes: number, signal: AbortSignal): Promise<void> {
    return this.#bucket.take(bytes, signal);
  }
}
