import type { Clock } from '../../base/clock.ts';
import { DaemonError } from '../../base/errors.ts';
import type { Digest } from '../../oci/digest.ts';
import type { BlobCatalog, BlobInfo, BlobReader } from '../blob-store.ts';
import type { Chores } from '../disk/chores.ts';
import { fileError } from '../disk/file-errors.ts';
import type { Files } from '../disk/files.ts';
import type { StoreLayout } from '../disk/layout.ts';
import { Serial } from '../disk/serial.ts';
import type { SyncTurn } from '../disk/sync-lane.ts';
import { type BlobEntry, type BlobIndex, infoOf, NO_LABELS } from './blob-index.ts';
import type { BlobReaders } from './blob-readers.ts';
import type { BlobRemoval } from './blob-removal.ts';
import type { BlobScan } from './blob-scan.ts';
import { ARRIVAL_KEEP_MS, type CacheFolder } from './cache-folder.ts';
import { type Labels, updatedLabels } from './labels.ts';
import type { LostBlobs } from './lost-blobs.ts';
import type { PieceLists } from './piece-lists.ts';
import type { Publication, WholeFile } from './publication.ts';

type Modules = {
  readonly index: BlobIndex;
  readonly scan: Pick<BlobScan, 'ended'>;
  readonly readers: BlobReaders;
  readonly removal: BlobRemoval;
  readonly cache: CacheFolder;
  readonly publication: Publication;
  readonly lists: PieceLists;
  readonly lost: LostBlobs;
  readonly layout: StoreLayout;
  readonly files: Pick<Files, 'lookNow'>;
  /** Hears of a blob without a piece list that came past us. */
  readonly found: (digest: Digest) => void;
  readonly chores: Chores;
  readonly clock: Clock;
};

/** How a file becomes a blob. */
type Publishing = {
  /** Digests of its pieces; undefined: they are computed in the background. */
  readonly pieces: Uint8Array | undefined;
  /** Asked in the moment of the rename; false = it is not wanted any more. */
  readonly isWanted: () => boolean;
  /** A blob that containerd had lost is its own again at once, without a commit. */
  readonly heals: boolean;
  readonly turn: SyncTurn;
};

/** The committed blobs: what containerd asks, and the one entrance for new ones. */
export class LocalCatalog implements BlobCatalog {
  readonly #m: Modules;
  readonly #labelWrites = new Serial();
  /** One publication of a digest at a time; at most one for each open ingest and working copy. */
  readonly #publishing = new Map<Digest, Promise<unknown>>();

  constructor(modules: Modules) {
    this.#m = modules;
  }

  info(digest: Digest): BlobInfo | undefined {
    const entry = this.#m.index.get(digest);
    return entry === undefined || entry.state === 'cache' ? undefined : infoOf(entry);
  }

  cached(digest: Digest): BlobInfo | undefined {
    const entry = this.#m.index.get(digest);
    return entry?.state === 'cache' ? infoOf(entry) : undefined;
  }

  restore(digest: Digest): Promise<boolean> {
    return this.#m.cache.restore(digest);
  }

  adopt(digest: Digest): BlobInfo | undefined {
    if (this.#m.index.get(digest) === undefined) this.#takeIn(digest);
    const entry = this.intact(digest);
    this.#m.cache.sweep();
    return entry && this.own(entry);
  }

  async list(): Promise<Iterable<BlobInfo>> {
    await this.#m.scan.ended();
    return this.#listed();
  }

  *#listed(): Iterable<BlobInfo> {
    this.#m.cache.sweep();
    for (const entry of this.#m.index.entries()) {
      if (entry.state === 'owned') yield infoOf(entry);
    }
    // containerd's collection deletes what it sees here and no longer knows: so a lost blob of a removed image is missed no longer.
    for (const { digest, size_bytes } of this.#m.lost.all()) {
      yield { digest, size_bytes, created_ns: 0n, updated_ns: 0n, labels: NO_LABELS };
    }
  }

  update(digest: Digest, labels: Labels, mode: 'replace' | 'merge'): Promise<BlobInfo> {
    return this.#labelWrites.run(async () => {
      const { index, clock } = this.#m;
      const entry = index.get(digest) ?? missing(digest);
      const fresh = updatedLabels(entry.labels, labels, mode);
      await this.#saveLabels(digest, fresh);
      entry.labels = fresh;
      entry.updated_ns = clock.wall_ns();
      return infoOf(entry);
    });
  }

  delete(digest: Digest): Promise<void> {
    const { index, lost, cache, layout } = this.#m;
    lost.clear(digest);
    const entry = index.get(digest);
    if (entry?.state === 'owned') {
      entry.labels = NO_LABELS;
      layout.labels.remove(digest);
      entry.kept_until_ms = -Infinity;
      // An ingest that holds it is about to commit it anew.
      if (entry.pins > 0) index.setState(entry, 'published');
      else cache.take(entry);
    }
    cache.sweep();
    return Promise.resolve();
  }

  async open(digest: Digest): Promise<BlobReader> {
    const entry = this.#m.index.get(digest);
    if (entry === undefined || entry.state === 'cache') return missing(digest);
    return await this.#m.readers.open(entry);
  }

  opened(digest: Digest): BlobReader | undefined {
    const entry = this.#m.index.get(digest);
    return entry === undefined || entry.state === 'cache' ? undefined : this.#m.readers.held(entry);
  }

  /** Memory. containerd has the blob now: listed, and never removed but on its own `Delete`. A lost blob is back. */
  own(entry: BlobEntry): BlobInfo {
    const { lost, index, clock } = this.#m;
    lost.clear(entry.digest);
    if (entry.state !== 'owned') {
      // Its file is some milliseconds older; for containerd a blob begins with its commit.
      entry.created_ns = clock.wall_ns();
      entry.updated_ns = entry.created_ns;
    }
    index.setState(entry, 'owned');
    return infoOf(entry);
  }

  /**
   * Makes a verified, complete file a published blob, as `Publication.place` says, and pins it once for the caller, who gives the pin back
   * with `unpin`. When the blob is here already the file stays where it is, for the caller to remove; and also, with an undefined result, when
   * it is not wanted any more.
   */
  async publish(file: WholeFile, options: Publishing): Promise<BlobEntry | undefined> {
    const { digest } = file;
    // While its name is being forced to the disk the file lies under `blobs/` already.
    this.#m.index.settle(digest);
    const before = this.#publishing.get(digest);
    const job = (async () => {
      await before?.catch(() => undefined);
      return await this.#publish(file, options);
    })();
    this.#publishing.set(digest, job);
    try {
      return await job;
    } finally {
      if (this.#publishing.get(digest) === job) this.#publishing.delete(digest);
    }
  }

  /** Memory. The ingest that held the blob was aborted; what nobody else has taken goes to the cache right after this call. Only for calls of containerd. */
  abandon(entry: BlobEntry): void {
    this.#m.cache.takeSoon(entry);
  }

  /** Memory. The holder of a blob lets go. */
  unpin(entry: BlobEntry): void {
    entry.pins -= 1;
  }

  /** The entry of a blob under `blobs/` whose file is there in full. A damaged one is condemned. One `stat`. */
  intact(digest: Digest): BlobEntry | undefined {
    const entry = this.#m.index.get(digest);
    if (entry === undefined || entry.state === 'cache') return undefined;
    return this.#m.removal.isWhole(entry) ? entry : undefined;
  }

  /** The cache blob's entry, whose file is there in full. One `stat`. */
  kept(digest: Digest): BlobEntry | undefined {
    const entry = this.#m.index.get(digest);
    return entry?.state === 'cache' && this.#m.removal.isWhole(entry) ? entry : undefined;
  }

  /** A blob that came past us, while containerd used its own store: as good as those found at start. Not one that is just being published. */
  #takeIn(digest: Digest): void {
    const { index, files, layout, lost, found } = this.#m;
    const file = this.#publishing.has(digest) ? undefined : files.lookNow(layout.blob(digest));
    if (file?.is_file !== true) return;
    lost.clear(digest);
    const { size_bytes, mtime_ns } = file;
    const times = { created_ns: mtime_ns, updated_ns: mtime_ns };
    const entry = index.add({ digest, size_bytes, ...times, labels: NO_LABELS, state: 'owned' });
    if (!entry.listed) found(digest);
  }

  async #publish(file: WholeFile, options: Publishing): Promise<BlobEntry | undefined> {
    const { digest } = file;
    const isWanted = (): boolean => options.isWanted() && this.intact(digest) === undefined;
    const placing = { fresh: true, isWanted, turn: options.turn };
    // Once more when what was in its place has left `blobs/` meanwhile.
    while (options.isWanted()) {
      const present = this.intact(digest);
      if (present !== undefined) {
        present.pins += 1;
        present.kept_until_ms = this.#m.clock.now_ms() + ARRIVAL_KEEP_MS;
        return present;
      }
      if (await this.#m.publication.place(file, placing)) return this.#enter(file, options);
    }
    return undefined;
  }

  #enter({ digest, size_bytes }: WholeFile, { pieces, heals }: Publishing): BlobEntry {
    const { index, lost, lists, chores, clock, removal, layout } = this.#m;
    // A cache copy of the same blob has become superfluous.
    const old = index.get(digest);
    if (old?.state === 'cache') removal.discard(old);
    else if (old !== undefined) index.remove(old);
    const now = clock.wall_ns();
    const entry = index.add({
      digest,
      size_bytes,
      created_ns: now,
      updated_ns: now,
      labels: NO_LABELS,
      state: 'published',
    });
    if (heals && lost.has(digest)) this.own(entry);
    entry.pins = 1;
    entry.kept_until_ms = clock.now_ms() + ARRIVAL_KEEP_MS;
    layout.labels.remove(digest);
    if (pieces !== undefined && !entry.listed) {
      const list = { digest, size_bytes, digests: pieces };
      lists.remember(list);
      index.setListed(entry, true);
      chores.start('piece list not saved', () => lists.save(list));
    }
    return entry;
  }

  async #saveLabels(digest: Digest, labels: Labels): Promise<void> {
    const { layout } = this.#m;
    try {
      if (Object.keys(labels).length === 0) layout.labels.remove(digest);
      else await layout.labels.replace(digest, JSON.stringify(labels));
    } catch (error) {
      throw fileError(error, 'write', layout.labels.path(digest));
    }
  }
}

/** Throws `not_found` for a blob. */
export function missing(digest: Digest): never {
  throw new DaemonError('not_found', `content ${digest}: not found`, { digest });
}
