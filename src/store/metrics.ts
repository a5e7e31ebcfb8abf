import type { MetricRegister } from '../ops/register.ts';

/** What the store counts. */
export type StoreMetrics = ReturnType<typeof createStoreMetrics>;

/** Declares the store's metrics. `read` supplies the values that live in the index. */
export function createStoreMetrics(
  register: MetricRegister,
  read: {
    blobs(): { owned: number; published: number; cache: number };
    cacheBytes(): number;
    lost(): number;
  },
) {
  return {
    blobs: register.gauge<{ state: 'owned' | 'published' | 'cache' }>({
      name: 'store_blobs',
      help: 'Committed blobs by state.',
      labels: ['state'],
      collect: (set) => {
        const { owned, published, cache } = read.blobs();
        set({ state: 'owned' }, owned);
        set({ state: 'published' }, published);
        set({ state: 'cache' }, cache);
      },
    }),
    cache: register.gauge({
      name: 'store_cache_bytes',
      help: 'Bytes of blobs that containerd does not reference and that are kept for peers.',
      collect: (set) => set({}, read.cacheBytes()),
    }),
    evictions: register.counter<{ reason: 'budget' | 'disk' }>({
      name: 'store_evictions_total',
      help: 'Cache blobs removed, by what asked for their space.',
      labels: ['reason'],
    }),
    quarantined: register.counter<{ reason: 'corrupt' | 'missing' }>({
      name: 'store_quarantined_total',
      help: 'Blobs taken out of service because their file is not what was committed.',
      labels: ['reason'],
    }),
    lost: register.gauge({
      name: 'store_lost_blobs',
      help: 'Blobs that containerd references and whose bytes were found damaged or missing.',
      collect: (set) => set({}, read.lost()),
    }),
    restored: register.counter({
      name: 'store_cache_restored_bytes_total',
      help: 'Bytes of cache blobs that were verified anew and brought back for containerd.',
    }),
    restore_seconds: register.histogram({
      name: 'store_cache_restore_seconds',
      help: 'Time to verify a cache blob and bring it back.',
      // From a config of some KiB to a layer of 5 GiB at the speed of sha256.
      buckets: [0.005, 0.02, 0.1, 0.5, 2, 5],
    }),
    ingested: register.counter({
      name: 'store_ingest_bytes_total',
      help: 'Bytes written by containerd through ingests.',
    }),
    staged: register.counter({
      name: 'store_staged_bytes_total',
      help: 'Bytes of verified pieces written to working copies.',
    }),
    fsync: register.histogram<{ of: 'data' | 'directory' }>({
      name: 'store_fsync_seconds',
      help: 'Duration of fsync calls.',
      labels: ['of'],
      // From an NVMe cache hit to a disk that is being flushed by others.
      buckets: [0.0005, 0.002, 0.01, 0.05, 0.2, 1, 5],
    }),
    rebuilt: register.counter({
      name: 'store_hash_rebuild_bytes_total',
      help: 'Bytes of ingests read again to rebuild their running hash.',
    }),
    backfilled: register.counter({
      name: 'store_backfill_bytes_total',
      help: 'Bytes of blobs read in the background to compute missing piece lists.',
    }),
  };
}
