import * as fs from 'node:fs';
import { errnoOf } from '../../base/errors.ts';
import type { Digest } from '../../oci/digest.ts';
import type { Logger } from '../../ops/logger.ts';
import type { Chores } from '../disk/chores.ts';
import type { Files } from '../disk/files.ts';
import type { StoreLayout } from '../disk/layout.ts';
import type { StoreMetrics } from '../metrics.ts';
import type { BlobEntry, BlobIndex } from './blob-index.ts';
import type { BlobReaders } from './blob-readers.ts';
import type { LostBlobs } from './lost-blobs.ts';
import type { PieceLists } from './piece-lists.ts';
import type { Publication } from './publication.ts';
import type { Quarantine } from './quarantine.ts';

type Modules = {
  readonly index: BlobIndex;
  readonly readers: BlobReaders;
  readonly lists: PieceLists;
  readonly lost: LostBlobs;
  readonly quarantine: Quarantine;
  readonly publication: Publication;
  readonly layout: StoreLayout;
  readonly files: Files;
  readonly chores: Chores;
  readonly logger: Logger;
  readonly metrics: StoreMetrics;
};

/** The ways a committed blob leaves the store. The index forgets it first, so that nobody sees half of it. */
export class BlobRemoval {
  readonly #m: Modules;

  constructor(modules: Modules) {
    this.#m = modules;
  }

  /** Nobody needs it: removed at once for all, its space is free soon after. Never fails: what cannot be removed is logged and forgotten. */
  discard(entry: BlobEntry): void {
    const { files, layout, chores, logger } = this.#m;
    const { digest } = entry;
    const path = entry.state === 'cache' ? layout.cached(digest) : layout.blob(digest);
    this.forget(entry);
    const trash = layout.fresh('trash');
    try {
      // A rename first: an unlink that runs later could hit a new file of the same digest.
      files.renameNow(path, trash);
    } catch (err) {
      if (errnoOf(err) !== 'ENOENT') logger.warn({ err, digest, path }, 'blob cannot be removed');
      return;
    }
    chores.start('removed blob not unlinked', () => files.remove(trash));
  }

  /**
   * Its file is not what was committed: out of service, and put aside for inspection unless it lies in a directory that containerd runs by
   * itself now; an owned blob is remembered as lost.
   */
  condemn(entry: BlobEntry, reason: 'corrupt' | 'missing'): void {
    const { index, quarantine, logger, metrics, lost, layout, publication } = this.#m;
    const { digest, size_bytes, state } = entry;
    if (index.get(digest) !== entry) return;
    const file = state === 'cache' ? layout.cached(digest) : layout.blob(digest);
    this.forget(entry);
    const path = state === 'cache' || publication.wired ? quarantine.take(digest, file) : file;
    metrics.quarantined.inc({ reason });
    logger.error(
      { digest, size_bytes, state, path, reason },
      state === 'owned'
        ? 'blob is damaged and out of service: check the disk; peers restore it if they have it, else run layerswarm doctor'
        : 'blob is damaged and out of service: check the disk; containerd does not reference it',
    );
    if (state === 'owned') lost.add(digest, size_bytes);
  }

  /** Out of memory, with everything that is kept about it; its file stays. */
  forget(entry: BlobEntry): void {
    const { index, readers, lists, layout, chores, logger } = this.#m;
    const digest: Digest = entry.digest;
    index.remove(entry);
    try {
      lists.remove(digest);
      layout.labels.remove(digest);
    } catch (err) {
      logger.warn({ err, digest }, 'what was kept about a removed blob stays');
    }
    chores.start('blob file not closed', () => readers.drop(digest));
  }

  /** True when the file of a blob is there with its size. One `stat`. */
  isWhole(entry: BlobEntry): boolean {
    const { layout } = this.#m;
    const path = entry.state === 'cache' ? layout.cached(entry.digest) : layout.blob(entry.digest);
    const file = fs.statSync(path, { throwIfNoEntry: false });
    if (file?.isFile() === true && file.size === entry.size_bytes) return true;
    this.condemn(entry, file === undefined ? 'missing' : 'corrupt');
    return false;
  }
}
