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

/** `now`: containerd's transaction waits, so it passes all others. Such calls are as many as COMMITs at a time: one, for containerd's database has one writer. */
export type SyncTurn = 'now' | 'in turn';

type Request = {
  readonly of: 'data' | 'directory';
  readonly path: string;
  readonly turn: SyncTurn;
  readonly isDue: () => boolean;
};

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

  /**
   * The content of an open file is on the disk. `resource_exhausted` when not: then nobody knows what is. `path` is for the error. `isDue` is asked when its
   * turn has come; false = nothing is done.
   */
  file(fd: number, path: string, turn: SyncTurn, isDue: () => boolean = () => true): Promise<void> {
    return this.#run({ of: 'data', path, turn, isDue }, () => this.#files.sync(fd));
  }

  /** The names in a directory are on the disk. Errors as `file`. */
  directory(path: string, turn: SyncTurn): Promise<void> {
    return this.#run({ of: 'directory', path, turn, isDue: () => true }, async () => {
      const fd = await this.#files.open(path, 'r');
      try {
        await this.#files.sync(fd);
      } finally {
        await this.#files.close(fd);
      }
    });
  }

  async #run({ of, path, turn, isDue }: Request, sync: () => Promise<void>): Promise<void> {
    const force = async (): Promise<void> => {
      if (!isDue()) return;
      const began_ms = this.#clock.now_ms();
      try {
        await sync();
      } catch (error) {
        throw fileError(error, 'write', path);
      }
      this.#metrics.fsync.observe({ of }, (this.#clock.now_ms() - began_ms) / 1000);
    };
    await (turn === 'now' ? force() : this.#queue.add(force));
  }
}
