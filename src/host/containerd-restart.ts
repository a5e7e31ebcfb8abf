import type { Clock } from '../base/clock.ts';
import { DaemonError, isAbort } from '../base/errors.ts';
import { PROXY_NAME } from './containerd-config.ts';
import {
  type Ctr,
  imagesLost,
  type ImageSnapshot,
  parseContentPlugins,
  snapshotImages,
} from './image-check.ts';
import type { RunProgram } from './run-program.ts';

/** Our two units. */
export const OUR_UNITS = ['layerswarm.socket', 'layerswarm.service'] as const;
/** systemd waits for containerd's plugins and for our drain. */
const SYSTEMCTL_DEADLINE_MS = 180_000;
/** How long a daemon or containerd may take to answer after its start, in ms, and the time between two tries. */
const ANSWER_DEADLINE_MS = 30_000;
const RETRY_MS = 250;

/** Which content store a running containerd has. */
export type LiveStore = 'layerswarm' | 'builtin' | 'other' | 'none';

/** Whether our service runs, and whether it starts at boot. */
export type DaemonUnits = { readonly enabled: boolean; readonly active: boolean };

export type RestartModules = {
  readonly run: RunProgram;
  readonly clock: Clock;
  readonly ctr: Ctr;
  /** Resolves when our daemon answers a real call on its socket; rejects otherwise. */
  readonly daemonAnswers: (signal: AbortSignal) => Promise<unknown>;
};

/** Starts and stops containerd and our daemon through systemd, and proves by calls what came of it. */
export class ContainerdRestart {
  readonly #m: RestartModules;
  readonly #unit: string;

  constructor(modules: RestartModules, config: { readonly unit: string }) {
    this.#m = modules;
    this.#unit = config.unit;
  }

  /** Which store containerd has now, by its own plugin list; `none` when it does not answer. */
  async liveStore(signal: AbortSignal): Promise<LiveStore> {
    const listed = await this.#m.ctr(['plugins', 'ls'], signal);
    return listed.code === 0 ? liveStoreOf(listed.stdout) : 'none';
  }

  /** The images containerd knows now. */
  images(signal: AbortSignal): Promise<ImageSnapshot> {
    return snapshotImages(this.#m.ctr, signal);
  }

  /** systemd reads unit files anew. */
  async reload(signal: AbortSignal): Promise<void> {
    await this.#systemctl(['daemon-reload'], signal);
  }

  /** Enables and starts our units and waits until the daemon answers. `unavailable` when it does not. */
  async startDaemon(signal: AbortSignal): Promise<void> {
    await this.#systemctl(['enable', ...OUR_UNITS], signal);
    await this.#systemctl(['start', ...OUR_UNITS], signal);
    await this.#answering(
      'the layerswarm daemon does not answer; see: journalctl -u layerswarm',
      (s) => this.#m.daemonAnswers(s),
      signal,
    );
  }

  /** How our units are now, to be restored when something fails. */
  async daemonUnits(signal: AbortSignal): Promise<DaemonUnits> {
    const limits = { signal, deadline_ms: SYSTEMCTL_DEADLINE_MS };
    // Both answer with an exit code above 0 for "no"; what counts is the word.
    const [enabled, active] = await Promise.all([
      this.#m.run(['systemctl', 'is-enabled', 'layerswarm.service'], limits),
      this.#m.run(['systemctl', 'is-active', 'layerswarm.service'], limits),
    ]);
    return {
      enabled: enabled.stdout.trim() === 'enabled',
      active: ['active', 'activating', 'reloading'].includes(active.stdout.trim()),
    };
  }

  /** Our units as they were: containerd has its own store again, or never gave it away. */
  async restoreDaemon({ enabled, active }: DaemonUnits, signal: AbortSignal): Promise<void> {
    if (!active) await this.#systemctl(['stop', ...OUR_UNITS], signal);
    if (!enabled) await this.#systemctl(['disable', ...OUR_UNITS], signal);
  }

  /** Stops our units and keeps them from starting at boot. */
  async stopDaemon(signal: AbortSignal): Promise<void> {
    await this.#systemctl(['disable', '--now', ...OUR_UNITS], signal);
  }

  /**
   * Restarts our service and containerd in one transaction. Our unit stands before containerd's: containerd stops
   * first and starts last, so our daemon's look at the content directory misses nothing that the built-in store wrote.
   */
  async restartBoth(signal: AbortSignal): Promise<void> {
    await this.#systemctl(['restart', 'layerswarm.service', this.#unit], signal);
  }

  /** containerd alone. Its failed starts are forgotten first: systemd would refuse one more within its limit. */
  async restartContainerd(signal: AbortSignal): Promise<void> {
    await this.#systemctl(['reset-failed', this.#unit], signal);
    await this.#systemctl(['restart', this.#unit], signal);
  }

  /** Waits for containerd and checks its store and its images by real calls. `failed_precondition` tells what is wrong. */
  async verify(
    wanted: 'layerswarm' | 'builtin',
    before: ImageSnapshot,
    signal: AbortSignal,
  ): Promise<void> {
    const seen: { store: LiveStore } = { store: 'none' };
    await this.#answering(
      `containerd does not answer after its restart; see: journalctl -u ${this.#unit}`,
      async (s) => {
        seen.store = await this.liveStore(s);
        if (seen.store === 'none')
          throw new DaemonError('unavailable', 'containerd does not answer');
      },
      signal,
    );
    const found = seen.store;
    if (found !== wanted) {
      throw new DaemonError(
        'failed_precondition',
        `containerd runs, but its content store is ${found === 'other' ? 'another one' : found} and not ${wanted}; see: ctr plugins ls`,
        { found },
      );
    }
    const lost = imagesLost(before, await this.images(signal));
    if (lost.length === 0) return;
    const named = lost.slice(0, 5).join(', ');
    throw new DaemonError(
      'failed_precondition',
      `${lost.length} of ${before.size} images cannot be read any more through the new content store: ${named}`,
      { lost: lost.length },
    );
  }

  async #systemctl(args: readonly string[], signal: AbortSignal): Promise<void> {
    const limits = { signal, deadline_ms: SYSTEMCTL_DEADLINE_MS };
    const { code, stderr } = await this.#m.run(['systemctl', ...args], limits);
    if (code === 0) return;
    const told = (stderr.trim().split('\n')[0] ?? '').replace(/\.+$/, '');
    throw new DaemonError('unavailable', `systemctl ${args.join(' ')} failed: ${told}`, {
      code: code ?? -1,
    });
  }

  /** Tries until it works or the time is over; then throws `unavailable` with the last reason as its cause. */
  async #answering(
    message: string,
    attempt: (signal: AbortSignal) => Promise<unknown>,
    signal: AbortSignal,
  ): Promise<void> {
    const { clock } = this.#m;
    const end_ms = clock.now_ms() + ANSWER_DEADLINE_MS;
    for (;;) {
      try {
        await attempt(signal);
        return;
      } catch (cause) {
        if (signal.aborted || isAbort(cause)) throw cause;
        if (clock.now_ms() >= end_ms) throw new DaemonError('unavailable', message, {}, { cause });
      }
      await clock.sleep(RETRY_MS, { signal });
    }
  }
}

/** The content store of a `ctr plugins ls` output. Two at a time are `other`: nobody knows which one answers. */
export function liveStoreOf(plugins: string): LiveStore {
  // Disabled plugins are not listed; one that failed is, and does not serve.
  const loaded = parseContentPlugins(plugins).filter((p) => p.status === 'ok');
  const [only, ...others] = loaded;
  if (only === undefined || others.length > 0) return 'other';
  if (only.id === PROXY_NAME) return 'layerswarm';
  return only.id === 'content' ? 'builtin' : 'other';
}
