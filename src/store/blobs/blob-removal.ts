import * as fs from 'node:fs';
import { rm } from 'node:fs/promises';
import { errnoOf } from '../../base/errors.ts';
import type { Digest } from '../../oci/digest.ts';
import type { Logger } from '../../ops/logger.ts';
import type { BlobEntry, BlobIndex } from './blob-index.ts';
import type { BlobReaders } from './blob-readers.ts';
import type { Chores } from '../disk/chores.ts';
import type { LostBlobs } from './lost-blobs.ts';
import type { StoreMetrics } from '../metrics.ts';
import type { PieceLists } from './piece-lists.ts';
import type { Quarantine } from './quarantine.ts';
import type { StoreLayout } from '../disk/layout.ts';

type Modules = {
  readonly index: BlobIndex;
  readonly readers: BlobReaders;
  readonly lists: PieceLists;
  readonly lost: LostBlobs;
  readonly quarantine: Quarantine;
  readonly layout: StoreLayout;
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

  /** Nobody needs it: removed at once for all, its space is free soon after. */
  discard(entry: BlobEntry): void {
    const { layout, chores } = this.#m;
    this.#forget(entry);
    const trash = layout.fresh('trash');
    try {
      // A rename first: an unlink that runs later could hit a new file of the same digest.
      fs.renameSync(layout.blob(entry.digest), trash);
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return;
      throw error;
    }
    chores.start('removed blob not unlinked', () => rm(trash, { force: true }));
  }

  /** Its file is not what was committed: put aside for inspection; an owned blob is remembered as lost. */
  condemn(entry: BlobEntry, reason: 'corrupt' | 'missing'): void {
    const { index, quarantine, logger, metrics, lost } = this.#m;
    const { digest, size_bytes, state } = entry;
    if (index.get(digest) !== entry) return;
    this.#forget(entry);
    const path = quarantine.take(digest);
    metrics.quarantined.inc({ reason });
    logger.error(
      { digest, size_bytes, state, path, reason },
      'blob is damaged and out of service; check the disk, then remove the image and pull it again unless peers restore it',
    );
    if (state === 'owned') lost.add(digest, size_bytes);
  }

  #forget(entry: BlobEntry): void {
    const { index, readers, lists, layout, chores } = this.#m;
    const digest: Digest = entry.digest;
    index.remove(entry);
    lists.remove(digest);
    layout.marks.remove(digest);
    layout.labels.remove(digest);
    chores.start('blob file not closed', () => readers.drop(digest));
  }
}
