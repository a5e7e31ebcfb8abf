import * as fs from 'node:fs';
import { DaemonError } from '../../base/errors.ts';
import type { Digest } from '../../oci/digest.ts';
import { MAX_BLOB_BYTES } from '../../piece/layout.ts';
import type { LocalCatalog } from '../blobs/blob-catalog.ts';
import type { BlobPlacement } from '../blobs/blob-placement.ts';
import type { BlobInfo, StagingArea } from '../blob-store.ts';
import type { Disk } from '../disk/free-space.ts';
import { fileError } from '../disk/file-errors.ts';
import type { StoreMetrics } from '../metrics.ts';
import { LocalStaged } from './staged-blob.ts';
import type { StoreLayout } from '../disk/layout.ts';

type Modules = {
  readonly layout: StoreLayout;
  readonly catalog: LocalCatalog;
  readonly placement: BlobPlacement;
  readonly disk: Disk;
  readonly metrics: StoreMetrics;
};

/** The working copies of the pull room. They do not survive the process: staging is wiped at start. */
export class LocalStaging implements StagingArea {
  readonly #m: Modules;
  readonly #max: number;
  readonly #staged = new Map<Digest, LocalStaged>();

  constructor(modules: Modules, config: { staged_max: number }) {
    this.#m = modules;
    this.#max = config.staged_max;
  }

  info(digest: Digest): BlobInfo | undefined {
    return this.#m.catalog.info(digest);
  }

  stage(digest: Digest, size_bytes: number): Promise<LocalStaged> {
    return new Promise((resolve) => resolve(this.#open(digest, size_bytes)));
  }

  async closeAll(): Promise<void> {
    await Promise.all([...this.#staged.values()].map((staged) => staged[Symbol.asyncDispose]()));
  }

  #open(digest: Digest, size_bytes: number): LocalStaged {
    if (!Number.isSafeInteger(size_bytes) || size_bytes < 0 || size_bytes > MAX_BLOB_BYTES) {
      throw new DaemonError('invalid_argument', `blob ${digest} cannot have ${size_bytes} bytes`, {
        digest,
      });
    }
    if (this.#staged.has(digest) || this.#m.catalog.info(digest) !== undefined) {
      throw new DaemonError('already_exists', `blob ${digest} is staged or committed already`, {
        digest,
      });
    }
    const room = this.#m.disk.hasRoom(size_bytes);
    if (!room || this.#staged.size >= this.#max) {
      const why = room ? `${this.#max} blobs are staged` : 'the disk would fall below its floor';
      throw new DaemonError('resource_exhausted', `blob ${digest} is not staged: ${why}`, {
        digest,
        size_bytes,
      });
    }
    const path = this.#m.layout.fresh('staged');
    const staged = new LocalStaged(
      { ...this.#m, onEnd: () => void this.#staged.delete(digest) },
      { digest, size_bytes },
      { path, fd: create(path) },
    );
    this.#staged.set(digest, staged);
    return staged;
  }
}

/** With the mode containerd gives ingest data: the file may become one. */
function create(path: string): number {
  try {
    return fs.openSync(path, 'wx+', 0o666);
  } catch (error) {
    throw fileError(error, 'write', path);
  }
}
