import type { Chores } from '../disk/chores.ts';
import { breathe } from '../disk/files.ts';
import type { Disk } from '../disk/free-space.ts';
import type { StoreMetrics } from '../metrics.ts';
import type { BlobEntry, BlobIndex } from './blob-index.ts';
import type { BlobRemoval } from './blob-removal.ts';

/** Evictions without letting anything else run: each is one rename. */
const SLICE = 16;

type Modules = {
  readonly index: BlobIndex;
  readonly removal: BlobRemoval;
  readonly disk: Disk;
  readonly chores: Chores;
  readonly metrics: StoreMetrics;
};

/** Keeps the cache folder within its bytes and the disk above its floor, by removing the longest unused cache blobs. Touches nothing else. */
export class CacheBudget {
  readonly #m: Modules;
  readonly #max_bytes: number;
  #working = false;

  constructor(modules: Modules, config: { cache_max_bytes: number }) {
    this.#m = modules;
    this.#max_bytes = config.cache_max_bytes;
  }

  /** False: nothing is cached at all. */
  get keeps(): boolean {
    return this.#max_bytes > 0;
  }

  /** After every blob that became cache, and after every look at the disk. Does nothing until all blobs are known. Returns at once; never fails its caller. */
  enforce(): void {
    if (!this.#m.index.complete || this.#working || !this.#evictSome()) return;
    this.#working = true;
    this.#m.chores.start('cache not brought within its budget', async () => {
      try {
        do await breathe();
        while (this.#evictSome());
      } finally {
        this.#working = false;
      }
    });
  }

  /** True when there is more to do. */
  #evictSome(): boolean {
    const { index, disk } = this.#m;
    let needed_bytes = disk.missing_bytes - this.#evicted_bytes(disk.looks);
    let evicted = 0;
    for (const entry of index.cached()) {
      const over = index.cache_bytes > this.#max_bytes;
      if (!over && needed_bytes <= 0) return false;
      if (entry.pins > 0) continue;
      if (evicted >= SLICE) return true;
      this.#evict(entry, over ? 'budget' : 'disk');
      this.#freed_bytes += entry.size_bytes;
      needed_bytes -= entry.size_bytes;
      evicted += 1;
    }
    return false;
  }

  #freed_bytes = 0;
  #freed_at_look = -1;

  /** What was freed since the disk was last looked at: it does not show in its free space yet. */
  #evicted_bytes(look: number): number {
    if (this.#freed_at_look !== look) this.#freed_bytes = 0;
    this.#freed_at_look = look;
    return this.#freed_bytes;
  }

  #evict(entry: BlobEntry, reason: 'budget' | 'disk'): void {
    this.#m.removal.discard(entry);
    this.#m.metrics.evictions.inc({ reason });
  }
}
