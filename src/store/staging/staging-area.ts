import { DaemonError } from '../../base/errors.ts';
import type { Digest } from '../../oci/digest.ts';
import { MAX_BLOB_BYTES } from '../../piece/layout.ts';
import type { LocalCatalog } from '../blobs/blob-catalog.ts';
import type { BlobInfo, StagingArea } from '../blob-store.ts';
import type { Disk } from '../disk/free-space.ts';
import { fileError } from '../disk/file-errors.ts';
import type { StoreMetrics } from '../metrics.ts';
import { LocalStaged } from './staged-blob.ts';
import type { Files } from '../disk/files.ts';
import type { StoreLayout } from '../disk/layout.ts';

type Modules = {
  readonly layout: StoreLayout;
  readonly catalog: LocalCatalog;
  readonly files: Files;
  readonly disk: Disk;
  readonly metrics: StoreMetrics;
};

/** The working copies of the pull room. They do not survive the process: staging is wiped at start. */
export class LocalStaging implements StagingArea {
  readonly #m: Modules;
  readonly #max: number;
  readonly #staged = new Map<Digest, LocalStaged | 'opening'>();

  constructor(modules: Modules, config: { staged_max: number }) {
    this.#m = modules;
    this.#max = config.staged_max;
  }

  info(digest: Digest): BlobInfo | undefined {
    return this.#m.catalog.info(digest);
  }

  cached(digest: Digest): BlobInfo | undefined {
    return this.#m.catalog.cached(digest);
  }

  restore(digest: Digest): Promise<boolean> {
    return this.#m.catalog.restore(digest);
  }

  async stage(digest: Digest, size_bytes: number): Promise<LocalStaged> {
    this.#admit(digest, size_bytes);
    const { files, layout } = this.#m;
    const freshPath = (): string => layout.fresh('staged');
    const path = freshPath();
    this.#staged.set(digest, 'opening');
    let fd: number;
    try {
      // With the mode containerd gives ingest data: the file may become one.
      fd = await files.open(path, 'wx+', 0o666);
    } catch (error) {
      this.#staged.delete(digest);
      throw fileError(error, 'write', path);
    }
    const onEnd = (): void => void this.#staged.delete(digest);
    const modules = { ...this.#m, freshPath, onEnd };
    const staged = new LocalStaged(modules, { digest, size_bytes }, { path, fd });
    this.#staged.set(digest, staged);
    return staged;
  }

  async closeAll(): Promise<void> {
    const staged = [...this.#staged.values()].filter((s) => s !== 'opening');
    await Promise.all(staged.map((s) => s[Symbol.asyncDispose]()));
  }

  #admit(digest: Digest, size_bytes: number): void {
    if (!Number.isSafeInteger(size_bytes) || size_bytes < 0 || size_bytes > MAX_BLOB_BYTES) {
      throw new DaemonError('invalid_argument', `blob ${digest} cannot have ${size_bytes} bytes`, {
        digest,
      });
    }
    const { catalog, disk } = this.#m;
    if (this.#staged.has(digest) || catalog.info(digest) || catalog.cached(digest)) {
      throw new DaemonError('already_exists', `blob ${digest} is staged or committed already`, {
        digest,
      });
    }
    const room = disk.hasRoom(size_bytes);
    if (!room || this.#staged.size >= this.#max) {
      const why = room ? `${this.#max} blobs are staged` : 'the disk would fall below its floor';
      throw new DaemonError('resource_exhausted', `blob ${digest} is not staged: ${why}`, {
        digest,
        size_bytes,
      });
    }
  }
}
