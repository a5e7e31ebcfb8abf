import * as fs from 'node:fs';
import { join } from 'node:path';
import type { Clock } from '../../base/clock.ts';
import type { Digest } from '../../oci/digest.ts';
import { syncDirectory, syncFile } from '../disk/descriptor.ts';
import { fileError } from '../disk/file-errors.ts';
import type { StoreMetrics } from '../metrics.ts';
import type { StoreLayout } from '../disk/layout.ts';

/** Makes files durable and moves them under `blobs/`. */
export class BlobPlacement {
  readonly #layout: StoreLayout;
  readonly #clock: Clock;
  readonly #metrics: StoreMetrics;

  constructor(modules: { layout: StoreLayout; clock: Clock; metrics: StoreMetrics }) {
    this.#layout = modules.layout;
    this.#clock = modules.clock;
    this.#metrics = modules.metrics;
  }

  /** fsync of a file's content. `resource_exhausted`: after a failure the content cannot be trusted any more. */
  async sync(fd: number, path: string): Promise<void> {
    const began_ms = this.#clock.now_ms();
    await syncFile(fd).catch((error: unknown) => {
      throw fileError(error, 'write', path);
    });
    this.#metrics.fsync.observe({ of: 'data' }, (this.#clock.now_ms() - began_ms) / 1000);
  }

  /**
   * Renames a synced file to its place, as containerd does: read-only, its times those of the commit. Synchronous, because containerd's
   * transaction waits for a commit, and the thread pool may be busy with the data of other blobs. Resolves
   * `durable` when the new name is on the disk as well.
   *
   * A commit does not wait for that: containerd's database syncs right after it, on the same file system by default, and a
   * journal keeps the order, so that a blob which the database remembers after a power cut has its name. (containerd's own store
   * did not sync the directory before 2.2.) While much is being written such a sync was measured at 100 ms and more.
   */
  place(path: string, digest: Digest): { readonly durable: Promise<void> } {
    const target = this.#layout.blob(digest);
    const directory = join(target, '..');
    try {
      const isNew = !fs.existsSync(directory);
      this.#layout.blobDirectory(digest);
      fs.renameSync(path, target);
      fs.chmodSync(target, fs.statSync(target).mode & 0o444);
      const now = Number(this.#clock.wall_ns()) / 1e9;
      fs.utimesSync(target, now, now);
      return { durable: this.#syncName(directory, isNew) };
    } catch (error) {
      throw fileError(error, 'write', target);
    }
  }

  async #syncName(directory: string, isNew: boolean): Promise<void> {
    const began_ms = this.#clock.now_ms();
    try {
      await syncDirectory(directory);
      if (isNew) await syncDirectory(join(directory, '..'));
    } catch (error) {
      throw fileError(error, 'write', directory);
    }
    this.#metrics.fsync.observe({ of: 'directory' }, (this.#clock.now_ms() - began_ms) / 1000);
  }
}
