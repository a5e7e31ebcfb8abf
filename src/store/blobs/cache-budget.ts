import type { Clock } from '../../base/clock.ts';
import type { BlobEntry, BlobIndex } from './blob-index.ts';
import type { BlobRemoval } from './blob-removal.ts';
import type { Disk } from '../disk/free-space.ts';
import type { StoreMetrics } from '../metrics.ts';

/**
 * How long a blob that came from peers stays whatever the budget says, in ms. containerd asks for the layers of an image three
 * at a time and unpacks in between; a layer that is gone when it asks would be fetched twice.
 */
export const ARRIVAL_KEEP_MS = 10 * 60_000;

/**
 * Keeps the cache within its bytes and the disk above its floor, by removing the longest unused cache blobs. Owned blobs are
 * never touched, and new arrivals not before containerd had the time to ask for them.
 */
export class CacheBudget {
  readonly #index: BlobIndex;
  readonly #clock: Pick<Clock, 'now_ms'>;
  readonly #removal: BlobRemoval;
  readonly #disk: Disk;
  readonly #metrics: StoreMetrics;
  readonly #max_bytes: number;

  constructor(
    modules: {
      index: BlobIndex;
      clock: Pick<Clock, 'now_ms'>;
      removal: BlobRemoval;
      disk: Disk;
      metrics: StoreMetrics;
    },
    config: { cache_max_bytes: number },
  ) {
    this.#index = modules.index;
    this.#clock = modules.clock;
    this.#removal = modules.removal;
    this.#disk = modules.disk;
    this.#metrics = modules.metrics;
    this.#max_bytes = config.cache_max_bytes;
  }

  /** After every blob that became cache, and after every look at the disk. */
  enforce(): void {
    let needed_bytes = this.#disk.missing_bytes;
    const now_ms = this.#clock.now_ms();
    for (const entry of this.#index.cached()) {
      const over = this.#overBudget();
      if (!over && needed_bytes <= 0) return;
      if (entry.pins > 0 || entry.kept_until_ms > now_ms) continue;
      this.#evict(entry, over ? 'budget' : 'disk');
      needed_bytes -= entry.size_bytes;
    }
  }

  #overBudget(): boolean {
    return (
      this.#index.cache_count > 0 &&
      (this.#max_bytes === 0 || this.#index.cache_bytes > this.#max_bytes)
    );
  }

  #evict(entry: BlobEntry, reason: 'budget' | 'disk'): void {
    this.#removal.discard(entry);
    this.#metrics.evictions.inc({ reason });
  }
}
