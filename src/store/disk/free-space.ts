import { statfs } from 'node:fs/promises';
import type { Clock } from '../../base/clock.ts';
import type { Logger } from '../../ops/logger.ts';

/** Free bytes of the file system a directory lies on, for us. */
export type FreeBytes = (directory: string) => Promise<number>;

/** What statfs says is available to this process. */
const freeBytes: FreeBytes = async (directory) => {
  const { bavail, bsize } = await statfs(directory);
  return bavail * bsize;
};

/** Time between two looks at the free space, in ms: a fast disk fills 4 GiB meanwhile, the least a floor should be. */
const DISK_INTERVAL_MS = 2000;

/** Free space, looked at every two seconds and answered from memory. */
export class Disk {
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #probe: FreeBytes;
  readonly #directory: string;
  readonly #floor_bytes: number;
  #free_bytes = Number.POSITIVE_INFINITY;
  #low = false;
  #looks = 0;

  constructor(
    modules: { clock: Clock; logger: Logger; free?: FreeBytes | undefined },
    config: { directory: string; disk_floor_bytes: number },
  ) {
    this.#clock = modules.clock;
    this.#logger = modules.logger;
    this.#probe = modules.free ?? freeBytes;
    this.#directory = config.directory;
    this.#floor_bytes = config.disk_floor_bytes;
  }

  /** Below the floor, and until a tenth above it again. */
  get low(): boolean {
    return this.#low;
  }

  /** Counts the looks, so that a reader can tell a new figure from an old one. */
  get looks(): number {
    return this.#looks;
  }

  /** Bytes that must be freed to stand above the floor and its tenth. */
  get missing_bytes(): number {
    return this.#low ? Math.max(0, this.#floor_bytes * 1.1 - this.#free_bytes) : 0;
  }

  /** True when `bytes` more would leave the floor untouched. */
  hasRoom(bytes: number): boolean {
    return !this.#low && this.#free_bytes - bytes >= this.#floor_bytes;
  }

  /** Looks now. */
  async refresh(): Promise<void> {
    try {
      this.#free_bytes = await this.#probe(this.#directory);
      this.#looks += 1;
    } catch (err) {
      this.#logger.warn({ err, path: this.#directory }, 'free disk space unknown');
      return;
    }
    const threshold = this.#low ? this.#floor_bytes * 1.1 : this.#floor_bytes;
    const low = this.#free_bytes < threshold;
    if (low === this.#low) return;
    this.#low = low;
    const facts = { path: this.#directory, free_bytes: this.#free_bytes, floor: this.#floor_bytes };
    if (low) this.#logger.warn(facts, 'disk below its floor: caching and announcing stop');
    else this.#logger.info(facts, 'disk above its floor again');
  }

  /** Looks every two seconds until the signal fires, and tells `onLook` each time. */
  async watch(onLook: () => void, signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await this.refresh();
      onLook();
      await this.#clock.sleep(DISK_INTERVAL_MS, { signal });
    }
  }
}
