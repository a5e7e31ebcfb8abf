import type { Files } from '../disk/files.ts';
import type { SyncLane } from '../disk/sync-lane.ts';

/** Bytes after which a file is forced to the disk while its writer goes on. */
const STEP_BYTES = 8 * 2 ** 20;
/** Most bytes (and one write) that are not on the disk while a writer goes on: a step that is on its way and one behind it. Then it waits. */
export const UNFORCED_MAX_BYTES = 2 * STEP_BYTES;

type Modules = {
  readonly files: Pick<Files, 'close'>;
  readonly lane: SyncLane;
};

type Force = { has_begun: boolean; done: Promise<void> };

/**
 * An open file that grows, and whose writer may not tell before its commit which byte was the last: then what is on the disk is kept close behind
 * what is written, so that the commit, which has to force the file, finds little to do.
 */
export class WriteBehind {
  readonly fd: number;
  readonly #m: Modules;
  readonly #path: string;
  #unforced_bytes = 0;
  #running: Force | undefined;
  #failure: { readonly error: unknown } | undefined;

  /** Takes over the open file at `path`. */
  constructor(modules: Modules, fd: number, path: string) {
    this.#m = modules;
    this.fd = fd;
    this.#path = path;
  }

  /** `bytes` were appended. Returns at once, unless the disk has fallen behind. Throws as `settled` does. */
  async wrote(bytes: number): Promise<void> {
    this.#unforced_bytes += bytes;
    this.#throwFailure();
    if (this.#unforced_bytes < STEP_BYTES) return;
    await this.#running?.done;
    this.#throwFailure();
    this.#force();
  }

  /**
   * Resolves when no force is under way; one that still stands in line is given up. Throws, once, what one has failed with since: whoever hears it must
   * give the bytes up, because the system tells an open file only once that pages were lost, and the next force would succeed without them.
   */
  async settled(): Promise<void> {
    await this.#stop();
    this.#throwFailure();
  }

  /** Closes the file, after what is under way. */
  async close(): Promise<void> {
    await this.#stop();
    await this.#m.files.close(this.fd);
  }

  async #stop(): Promise<void> {
    const force = this.#running;
    if (force === undefined) return;
    if (force.has_begun) await force.done;
    else this.#running = undefined;
  }

  #force(): void {
    this.#unforced_bytes = 0;
    const isDue = (): boolean => {
      force.has_begun = true;
      return this.#running === force;
    };
    const force: Force = { has_begun: false, done: Promise.resolve() };
    this.#running = force;
    force.done = this.#m.lane
      .file(this.fd, this.#path, 'in turn', isDue)
      .catch((error: unknown) => {
        this.#failure ??= { error };
      })
      .finally(() => {
        if (this.#running === force) this.#running = undefined;
      });
  }

  #throwFailure(): void {
    const failure = this.#failure;
    this.#failure = undefined;
    if (failure !== undefined) throw failure.error;
  }
}
