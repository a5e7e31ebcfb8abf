import type { Clock } from '../base/clock.ts';
import type { Digest } from '../oci/digest.ts';
import type { Logger } from '../ops/logger.ts';
import type { MetricRegister } from '../ops/register.ts';
import type { PieceList } from '../piece/piece-list.ts';
import { LocalCatalog } from './blobs/blob-catalog.ts';
import { BlobCheck, type CheckedBlob } from './blobs/blob-check.ts';
import { BlobIndex, type SharedEvent } from './blobs/blob-index.ts';
import { BlobReaders } from './blobs/blob-readers.ts';
import { BlobRemoval } from './blobs/blob-removal.ts';
import { BlobScan } from './blobs/blob-scan.ts';
import type { BlobInfo, BlobReader, BlobStore, IngestStatus, LostBlob } from './blob-store.ts';
import { CacheBudget } from './blobs/cache-budget.ts';
import { CacheFolder } from './blobs/cache-folder.ts';
import { Chores } from './disk/chores.ts';
import { Disk, type FreeBytes } from './disk/free-space.ts';
import { LocalIngests } from './ingests/local-ingests.ts';
import type { Labels } from './blobs/labels.ts';
import { ListBackfill } from './sharing/list-backfill.ts';
import type { LocalIngest } from './ingests/local-ingest.ts';
import { LostBlobs } from './blobs/lost-blobs.ts';
import { createStoreMetrics } from './metrics.ts';
import { PieceLists } from './blobs/piece-lists.ts';
import { Publication } from './blobs/publication.ts';
import { Quarantine } from './blobs/quarantine.ts';
import { SharedPieces } from './sharing/shared-pieces.ts';
import type { LocalStaged } from './staging/staged-blob.ts';
import { LocalStaging } from './staging/staging-area.ts';
import type { StoreConfig } from './store-config.ts';
import { claimStateFormat } from './disk/format.ts';
import { StoreLayout } from './disk/layout.ts';
import { type Files, systemFiles } from './disk/files.ts';
import { StoreLock } from './disk/lock.ts';
import { SyncLane } from './disk/sync-lane.ts';

export type StoreModules = {
  readonly clock: Clock;
  readonly logger: Logger;
  readonly register: MetricRegister;
  /** For tests: what statfs would say. */
  readonly free?: FreeBytes;
  /** For tests: the operating system's files by default. */
  readonly files?: Files;
  /** For tests: how many files the scan at start looks at before calls are answered. */
  readonly scan_slice_files?: number;
};

/**
 * The store on disk, in containerd's own layout and directory, so that containerd's built-in store and this one can take
 * turns and lose nothing. Open means it serves: what lies there is found in the background by `stat`, and at once when it is asked for;
 * `run` also does what needs reading.
 */
export class LocalStore implements BlobStore, AsyncDisposable {
  readonly #parts: Parts;

  private constructor(parts: Parts) {
    this.#parts = parts;
  }

  /**
   * Opens the store and takes its lock. `failed_precondition`: another daemon has it, the content directory is missing, or the
   * directories lie on different file systems, or a newer version has written the state. `permission_denied`: one of them cannot be written.
   */
  static async open(modules: StoreModules, config: StoreConfig): Promise<LocalStore> {
    const layout = StoreLayout.prepare(config);
    await using cleanup = new AsyncDisposableStack();
    cleanup.use(StoreLock.take(config.state_directory));
    claimStateFormat(config.state_directory);
    // The same directory twice would be a lock against ourselves; StoreLayout keeps the two apart by name only.
    if (config.work_directory !== config.state_directory) {
      cleanup.use(StoreLock.take(config.work_directory));
    }
    const stale = layout.renewStaging();
    const parts = assemble({ ...modules, layout }, config);
    cleanup.defer(() => close(parts));
    for (const path of stale) {
      parts.chores.start('old staging not removed', () => parts.files.remove(path));
    }
    await parts.disk.refresh();
    parts.index.setSharing(!parts.disk.low);
    return new LocalStore({ ...parts, locks: cleanup.move() });
  }

  /** Background work until the signal fires: the scan, free space, running hashes of found ingests, missing piece lists. Rejects only on a fault. */
  async run({ signal }: { signal: AbortSignal }): Promise<void> {
    const { ingests, backfill, disk, budget, index, scan } = this.#parts;
    const look = (): void => {
      budget.enforce();
      index.setSharing(!disk.low);
    };
    try {
      const reading = async (): Promise<void> => {
        await scan.ended(signal);
        look();
        await Promise.all([ingests.rehash(signal), backfill.run(signal)]);
      };
      await Promise.all([disk.watch(look, signal), reading()]);
    } catch (error) {
      if (!signal.aborted) throw error;
    }
  }

  /** Whether containerd uses this store, as far as the daemon knows. While it does not, nothing under `blobs/` is added or moved. */
  setWired(wired: boolean): void {
    this.#parts.publication.wired = wired;
  }

  /** Resolves when every blob found at start is known: until then `usage` and `shared` speak of those known so far. Begins the scan, as `run` and `list` do. */
  scanned({ signal }: { signal: AbortSignal }): Promise<void> {
    return this.#parts.scan.ended(signal);
  }

  /** Memory. How much is here, for people; walks all blobs. */
  usage(): {
    readonly owned_count: number;
    readonly owned_bytes: number;
    readonly cache_count: number;
    readonly cache_bytes: number;
  } {
    const { index } = this.#parts;
    let bytes = 0;
    for (const entry of index.entries()) bytes += entry.size_bytes;
    return {
      // Published blobs lie with the owned ones, and most are taken within seconds.
      owned_count: index.size - index.cache_count,
      owned_bytes: bytes - index.cache_bytes,
      cache_count: index.cache_count,
      cache_bytes: index.cache_bytes,
    };
  }

  /** The disk is below its floor: nothing is cached or announced. */
  get disk_low(): boolean {
    return this.#parts.disk.low;
  }

  /** Resolves when every blob here now has its piece list or was found damaged, given that `run` runs. */
  async listed(): Promise<void> {
    await this.#parts.scan.ended();
    await this.#parts.backfill.idle();
  }

  /** Resolves when the small file work that nobody waits for is done for the moment. */
  settled(): Promise<void> {
    return this.#parts.chores.finished();
  }

  /** Owned blobs that were found damaged and are not back yet. containerd does not pull them again by itself. */
  lost(): Iterable<LostBlob> {
    return this.#parts.lost.all();
  }

  /** containerd has no record of a lost blob any more. Nothing happens to a blob that is not lost. */
  forgetLost(digest: Digest): void {
    this.#parts.lost.clear(digest);
  }

  /** Reads the blob whole and compares it with its digest. `unavailable` while another one is being read. */
  check(digest: Digest, { signal }: { signal: AbortSignal }): Promise<CheckedBlob> {
    return this.#parts.check.check(digest, signal);
  }

  /** Calls `listener` for each blob that becomes lost. Returns the unsubscribe function. */
  onLost(listener: (blob: LostBlob) => void): () => void {
    return this.#parts.lost.onLost(listener);
  }

  info(digest: Digest): BlobInfo | undefined {
    return this.#parts.catalog.info(digest);
  }
  cached(digest: Digest): BlobInfo | undefined {
    return this.#parts.catalog.cached(digest);
  }
  restore(digest: Digest): Promise<boolean> {
    return this.#parts.catalog.restore(digest);
  }
  adopt(digest: Digest): BlobInfo | undefined {
    return this.#parts.catalog.adopt(digest);
  }
  list(): Promise<Iterable<BlobInfo>> {
    return this.#parts.catalog.list();
  }
  update(digest: Digest, labels: Labels, mode: 'replace' | 'merge'): Promise<BlobInfo> {
    return this.#parts.catalog.update(digest, labels, mode);
  }
  delete(digest: Digest): Promise<void> {
    return this.#parts.catalog.delete(digest);
  }
  open(digest: Digest): Promise<BlobReader> {
    return this.#parts.catalog.open(digest);
  }
  opened(digest: Digest): BlobReader | undefined {
    return this.#parts.catalog.opened(digest);
  }
  ingest(
    ref: string,
    options: { total_bytes: number; expected?: Digest; named?: Digest },
  ): Promise<LocalIngest> {
    return this.#parts.ingests.ingest(ref, options);
  }
  status(ref: string): IngestStatus | undefined {
    return this.#parts.ingests.status(ref);
  }
  statuses(): Iterable<IngestStatus> {
    return this.#parts.ingests.statuses();
  }
  abort(ref: string): Promise<void> {
    return this.#parts.ingests.abort(ref);
  }
  stage(digest: Digest, size_bytes: number): Promise<LocalStaged> {
    return this.#parts.staging.stage(digest, size_bytes);
  }
  shared(): Iterable<Digest> {
    return this.#parts.pieces.shared();
  }
  onShared(listener: (event: SharedEvent) => void): () => void {
    return this.#parts.pieces.onShared(listener);
  }
  pieceList(digest: Digest): Promise<PieceList> {
    return this.#parts.pieces.pieceList(digest);
  }
  readPiece(
    digest: Digest,
    index: number,
    options?: { readonly doubted: boolean },
  ): Promise<Uint8Array> {
    return this.#parts.pieces.readPiece(digest, index, options);
  }

  /** Ends staged blobs, finishes small file work, closes files and gives the lock back. Writers and `run` must have ended. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#parts.locks.disposeAsync();
  }
}

type Parts = ReturnType<typeof assemble> & { readonly locks: AsyncDisposableStack };

function assemble(modules: StoreModules & { layout: StoreLayout }, config: StoreConfig) {
  const { clock, layout, free, register, files = systemFiles } = modules;
  const logger = modules.logger.child({ room: 'store' });
  const index = new BlobIndex({ logger });
  const found = (digest: Digest): void => backfill.enqueue(digest);
  const scan = new BlobScan(
    { layout, index, clock, logger, found },
    { slice_files: modules.scan_slice_files },
  );
  const lost = new LostBlobs({ files: layout.lost, logger });
  const metrics = createStoreMetrics(register, {
    blobs: () => ({
      owned: index.size - index.cache_count - index.published_count,
      published: index.published_count,
      cache: index.cache_count,
    }),
    cacheBytes: () => index.cache_bytes,
    lost: () => lost.size,
  });
  const pathsOf = (digest: Digest): readonly string[] => {
    const paths = [layout.blob(digest), layout.cached(digest)];
    return index.get(digest)?.state === 'cache' ? paths.reverse() : paths;
  };
  const chores = new Chores({ logger });
  const readers = new BlobReaders({ files, pathsOf }, config);
  const lists = new PieceLists({ files: layout.pieces, pathsOf });
  const quarantine = new Quarantine({ layout, logger });
  const disk = new Disk(
    { clock, logger, free },
    { directory: layout.blobs, disk_floor_bytes: config.disk_floor_bytes },
  );
  const ground = { files, layout, chores, logger, metrics, clock };
  const shared = { ...ground, index, lists, readers, lost };
  const lane = new SyncLane(ground);
  const publication = new Publication({ ...ground, lane });
  const removal = new BlobRemoval({ ...shared, publication, quarantine });
  const budget = new CacheBudget({ ...shared, removal, disk }, config);
  const cache = new CacheFolder({ ...shared, removal, budget, publication });
  const catalog = new LocalCatalog({ ...shared, removal, cache, publication, found, scan });
  const check = new BlobCheck({ ...shared, catalog, removal });
  const backfill = new ListBackfill({ ...shared, removal }, config);
  const pieces = new SharedPieces({ ...shared, removal }, found);
  const ingests = new LocalIngests({ ...ground, lane, catalog });
  const staging = new LocalStaging({ ...ground, catalog, disk }, config);
  // containerd's own store may have brought some back.
  for (const { digest } of [...lost.all()]) if (index.get(digest)) lost.clear(digest);
  cache.takeMarked(config);
  return {
    ...{ files, index, scan, disk, chores, readers, lost, budget, publication },
    ...{ catalog, check, backfill, pieces, ingests, staging },
  };
}

async function close(parts: Omit<Parts, 'locks'>): Promise<void> {
  await parts.scan.close();
  await parts.staging.closeAll();
  await parts.chores.finished();
  await parts.readers.closeAll();
}
