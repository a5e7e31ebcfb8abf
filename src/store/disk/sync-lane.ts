import PQueue from 'p-queue';
import type { Clock } from '../../base/clock.ts';
import type { StoreMetrics } from '../metrics.ts';
import { fileError } from './file-errors.ts';
import type { Files } from './files.ts';

/**
 * Forced writes under way at a time. Each holds a thread of libuv's pool for as long as the disk takes (seconds, on a disk that others
 * flush); the pool has four times as many (`UV_THREADPOOL_SIZE`, set in main.ts), so that reads and writes never wait for them.
 */
const LANE_WIDTH = 4;

/** The one way to the disk itself: fsync, a few at a time. Waiters are bounded by open ingests and working copies. */
export class SyncLane {
  readonly #queue = new PQueue({ concurrency: LANE_WIDTH });
  readonly #files: Files;
  readonly #clock: Clock;
  readonly #metrics: StoreMetrics;

  constructor(modules: { files: Files; clock: Clock; metrics: StoreMetrics }) {
    this.#files = modules.files;
    this.#clock = modules.clock;
    this.#metrics = modules.metrics;
  }

  /** The content of an open file is on the disk. `resource_exhausted` when not: then nobody knows what is. `path` is for the error. */
  file(fd: number, path: string): Promise<void> {
    return this.#run('data', path, () => this.#files.sync(fd));
  }

  /** The names in a directory are on the disk. Errors as `file`. */
  directory(path: string): Promise<void> {
    return this.#run('directory', path, async () => {
      const fd = await this.#files.open(path, 'r');
      try {
        await this.#files.sync(fd);
      } finally {
        await this.#files.close(fd);
      }
    });
  }

  async #run(of: 'data' | 'directory', path: string, sync: () => Promise<void>): Promise<void> {
    await this.#queue.add(async () => {
      const began_ms = this.#clock.now_ms();
      try {
        await sync();
      } catch (error) {
        throw fileError(error, 'write', path);
      }
      this.#metrics.fsync.observe({ of }, (this.#clock.now_ms() - began_ms) / 1000);
    });
  }
}
