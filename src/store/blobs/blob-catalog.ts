import * as fs from 'node:fs';
import type { Clock } from '../../base/clock.ts';
import { DaemonError } from '../../base/errors.ts';
import type { Digest } from '../../oci/digest.ts';
import { type BlobEntry, type BlobIndex, infoOf, NO_LABELS } from './blob-index.ts';
import type { BlobReaders } from './blob-readers.ts';
import type { BlobRemoval } from './blob-removal.ts';
import type { BlobCatalog, BlobInfo, BlobReader } from '../blob-store.ts';
import { ARRIVAL_KEEP_MS, type CacheBudget } from './cache-budget.ts';
import type { CacheMarks } from './cache-marks.ts';
import type { Chores } from '../disk/chores.ts';
import { fileError } from '../disk/file-errors.ts';
import { type Labels, updatedLabels } from './labels.ts';
import type { LostBlobs } from './lost-blobs.ts';
import type { PieceLists } from './piece-lists.ts';
import { Serial } from '../disk/serial.ts';
import type { StoreLayout } from '../disk/layout.ts';

type Modules = {
  readonly index: BlobIndex;
  readonly readers: BlobReaders;
  readonly removal: BlobRemoval;
  readonly marks: CacheMarks;
  readonly budget: CacheBudget;
  readonly lists: PieceLists;
  readonly lost: LostBlobs;
  readonly layout: StoreLayout;
  readonly chores: Chores;
  readonly clock: Clock;
};

/** A file that has just been renamed to its place under `blobs/`. */
export type NewBlob = {
  readonly digest: Digest;
  readonly size_bytes: number;
  readonly state: 'owned' | 'cache';
  readonly labels: Labels;
  /** Undefined: computed in the background. */
  readonly pieces: Uint8Array | undefined;
};

/** The committed blobs: what containerd asks, and the one entrance for new ones. */
export class LocalCatalog implements BlobCatalog {
  readonly #m: Modules;
  readonly #labelWrites = new Serial();

  constructor(modules: Modules) {
    this.#m = modules;
  }

  info(digest: Digest): BlobInfo | undefined {
    const entry = this.#m.index.get(digest);
    return entry && infoOf(entry);
  }

  adopt(digest: Digest): BlobInfo | undefined {
    const { index, marks } = this.#m;
    const entry = index.get(digest);
    if (entry === undefined || !this.#intact(entry)) return undefined;
    if (entry.state === 'cache') {
      index.setState(entry, 'owned');
      marks.clear(digest);
    }
    return infoOf(entry);
  }

  *list(): Iterable<BlobInfo> {
    for (const entry of this.#m.index.entries()) {
      if (entry.state === 'owned') yield infoOf(entry);
    }
  }

  async update(digest: Digest, labels: Labels, mode: 'replace' | 'merge'): Promise<BlobInfo> {
    const entry = this.#m.index.get(digest) ?? missing(digest);
    entry.labels = updatedLabels(entry.labels, labels, mode);
    entry.updated_ns = this.#m.clock.wall_ns();
    await this.#saveLabels(entry);
    return infoOf(entry);
  }

  delete(digest: Digest): Promise<void> {
    const { index, marks, lost, budget } = this.#m;
    lost.clear(digest);
    const entry = index.get(digest);
    if (entry?.state !== 'owned') return Promise.resolve();
    entry.labels = NO_LABELS;
    this.#m.layout.labels.remove(digest);
    marks.set(digest);
    index.setState(entry, 'cache');
    entry.kept_until_ms = -Infinity;
    budget.enforce();
    return Promise.resolve();
  }

  async open(digest: Digest): Promise<BlobReader> {
    const entry = this.#m.index.get(digest) ?? missing(digest);
    this.#m.index.touch(entry);
    return await this.#m.readers.open(entry);
  }

  opened(digest: Digest): BlobReader | undefined {
    const entry = this.#m.index.get(digest);
    return entry && this.#m.readers.held(entry);
  }

  /** Takes a new file into the index. Its rename must be durable already. */
  async enter(blob: NewBlob): Promise<BlobInfo> {
    const { index, marks, lost, lists, chores, clock, budget } = this.#m;
    const { digest, size_bytes, labels, pieces } = blob;
    const found = index.get(digest);
    if (found !== undefined) return await this.promote(found, blob.state, labels);
    const state = lost.has(digest) ? 'owned' : blob.state;
    lost.clear(digest);
    if (state === 'cache') marks.set(digest);
    else marks.clear(digest);
    const now = clock.wall_ns();
    const entry = index.add({
      digest,
      size_bytes,
      created_ns: now,
      updated_ns: now,
      labels,
      state,
    });
    if (state === 'cache') entry.kept_until_ms = clock.now_ms() + ARRIVAL_KEEP_MS;
    if (pieces !== undefined && !entry.listed) {
      const list = { digest, size_bytes, digests: pieces };
      lists.remember(list);
      index.setListed(entry, true);
      chores.start('piece list not saved', () => lists.save(list));
    }
    if (Object.keys(labels).length > 0) await this.#saveLabels(entry);
    // Without labels only a stale file may be left to remove: a pull's commit must not queue behind others' label writes.
    else chores.start('stale labels not removed', () => this.#saveLabels(entry));
    budget.enforce();
    return infoOf(entry);
  }

  /** A blob that is here already gets the better state and the labels of a second commit. */
  async promote(entry: BlobEntry, state: 'owned' | 'cache', labels: Labels): Promise<BlobInfo> {
    if (state === 'owned') this.adopt(entry.digest);
    if (Object.keys(labels).length > 0) return await this.update(entry.digest, labels, 'replace');
    return infoOf(entry);
  }

  /** The entry whose file is there in full. A damaged one is condemned. One `stat`. */
  intact(digest: Digest): BlobEntry | undefined {
    const entry = this.#m.index.get(digest);
    return entry !== undefined && this.#intact(entry) ? entry : undefined;
  }

  #intact(entry: BlobEntry): boolean {
    const file = fs.statSync(this.#m.layout.blob(entry.digest), { throwIfNoEntry: false });
    if (file?.isFile() === true && file.size === entry.size_bytes) return true;
    this.#m.removal.condemn(entry, file === undefined ? 'missing' : 'corrupt');
    return false;
  }

  async #saveLabels(entry: BlobEntry): Promise<void> {
    const { index, layout } = this.#m;
    const { digest } = entry;
    await this.#labelWrites.run(async () => {
      if (index.get(digest) !== entry) return;
      if (Object.keys(entry.labels).length === 0) {
        layout.labels.remove(digest);
        return;
      }
      try {
        await layout.labels.replace(digest, JSON.stringify(entry.labels));
      } catch (error) {
        throw fileError(error, 'write', layout.labels.path(digest));
      }
    });
  }
}

/** Throws `not_found` for a blob. */
export function missing(digest: Digest): never {
  throw new DaemonError('not_found', `content ${digest}: not found`, { digest });
}
