import type { BlobEntry, BlobIndex } from './blob-index.ts';
import type { BlobRemoval } from './blob-removal.ts';
import type { Disk } from './disk.ts';
import type { StoreMetrics } from './metrics.ts';

/** Keeps the cache within its bytes and the disk above its floor, by removing the longest unused cache blobs. Owned blobs are never touched. */
export class CacheBudget {
  readonly #index: BlobIndex;
  readonly #removal: BlobRemoval;
  readonly #disk: Disk;
  readonly #metrics: StoreMetrics;
  readonly #max_bytes: number;

  constructor(
    modules: { index: BlobIndex; removal: BlobRemoval; disk: Disk; metrics: StoreMetrics },
    config: { cache_max_bytes: number },
  ) {
    this.#index = modules.index;
    this.#removal = modules.removal;
    this.#disk = modules.disk;
    this.#metrics = modules.metrics;
    this.#max_bytes = config.cache_max_bytes;
  }

  /** After every blob that became cache, and after every look at the disk. */
  enforce(): void {
    let needed_bytes = this.#disk.missing_bytes;
    for (const entry of this.#index.cached()) {
      const over = this.#overBudget();
      if (!over && needed_bytes <= 0) return;
      if (entry.pins > 0) continue;
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
