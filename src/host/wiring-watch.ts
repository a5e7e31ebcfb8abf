import type { Clock } from '../base/clock.ts';
import type { Logger } from '../ops/logger.ts';
import type { MetricRegister } from '../ops/register.ts';
import type { ForeignFiles } from './foreign-files.ts';

/** How often the content directory is looked at, in ms. */
const LOOK_MS = 3_000;
/** A file that came at most this long after a call may belong to it: files have the kernel's time, calls ours. */
const CALL_SLACK_MS = 2_000;

/** `unknown`: containerd has not called yet, and nothing speaks against it. */
type WiringState = 'wired' | 'not_wired' | 'unknown';

const STATES = ['wired', 'not_wired', 'unknown'] as const satisfies readonly WiringState[];

/** Does containerd use this daemon, and why do we think so: a sentence without its full stop. */
export type Wiring = { readonly state: WiringState; readonly reason: string };

/** When containerd called last, as a time of day in ms; undefined when it has not since our start. */
type LastCallTime = { readonly at_epoch_ms: number } | undefined;

type Modules = {
  readonly clock: Clock;
  readonly logger: Logger;
  readonly register: MetricRegister;
  readonly calls: {
    readonly last: LastCallTime;
    onCall(listener: () => void): () => void;
  };
  readonly files: { look(): Promise<ForeignFiles | undefined> };
};

/**
 * Judges from calls and files alone. containerd's database is no witness: leases, snapshots, namespaces and image records change it without
 * a content call. A blob or ingest that we did not write is one: containerd would have called us for it.
 */
export function judgeLiveWiring(last: LastCallTime, foreign: ForeignFiles | undefined): Wiring {
  const called_ms = last?.at_epoch_ms ?? -Infinity;
  if (foreign !== undefined && foreign.newest_epoch_ms > called_ms + CALL_SLACK_MS) {
    return {
      state: 'not_wired',
      reason: `a file came into the content directory that this daemon did not write (${foreign.example}), and containerd has not called since: it uses another content store`,
    };
  }
  if (last !== undefined) return { state: 'wired', reason: 'containerd uses this daemon' };
  return { state: 'unknown', reason: 'containerd has not called since this daemon started' };
}

/**
 * Notices that containerd no longer uses this daemon, as after its configuration was written anew, and that it does again. While it does
 * not, everything under `blobs/` belongs to another store and is not to be touched.
 */
export class WiringWatch {
  readonly #m: Modules;
  readonly #onChange: (wiring: Wiring) => void;
  #wiring: Wiring = judgeLiveWiring(undefined, undefined);

  /** `onChange` hears each change of state, from inside a call of containerd too: it must cost nothing. */
  constructor(modules: Modules, onChange: (wiring: Wiring) => void) {
    this.#m = modules;
    this.#onChange = onChange;
    modules.register.gauge<{ state: WiringState }>({
      name: 'containerd_wiring',
      help: '1 for the state in which this daemon sees containerd: it uses it as its content store, it uses another one, or it has not called yet.',
      labels: ['state'],
      collect: (set) =>
        STATES.forEach((state) => set({ state }, this.#wiring.state === state ? 1 : 0)),
    });
  }

  get wiring(): Wiring {
    return this.#wiring;
  }

  /** Watches until the signal fires; then rejects with its reason. */
  async run(signal: AbortSignal): Promise<void> {
    const { calls, clock, files, logger } = this.#m;
    const stop = calls.onCall(() => this.#called());
    try {
      for (;;) {
        try {
          // First the look: a call that came during it counts.
          const foreign = await files.look();
          this.#set(judgeLiveWiring(calls.last, foreign));
        } catch (err) {
          // Looking is all this does; a directory that cannot be read is the store's to report.
          logger.debug({ err }, 'the content directory could not be looked at');
        }
        await clock.sleep(LOOK_MS, { signal });
      }
    } finally {
      stop();
    }
  }

  /** It calls, so it is wired, whatever lies on disk. */
  #called(): void {
    if (this.#wiring.state === 'wired') return;
    this.#set(judgeLiveWiring(this.#m.calls.last, undefined));
  }

  #set(wiring: Wiring): void {
    const before = this.#wiring.state;
    this.#wiring = wiring;
    if (wiring.state === before) return;
    // What speaks against us is a condition, which says so in the log.
    if (wiring.state === 'wired') {
      this.#m.logger.info({ before }, 'containerd uses this daemon as its content store');
    }
    this.#onChange(wiring);
  }
}
