/**
 * Keeps the swarm alive beside the content service and never lets it harm it: what hinders its start becomes a condition and is
 * tried again, an error inside ends this one life of it, and a new one begins after a pause.
 */
import { backoff_ms } from './base/backoff.ts';
import type { Clock } from './base/clock.ts';
import { DaemonError } from './base/errors.ts';
import { ClusterKeyFile } from './cluster-key-file.ts';
import type { Digest } from './oci/digest.ts';
import type { ConditionReport } from './ops/conditions.ts';
import type { Logger } from './ops/logger.ts';
import type { MetricRegister } from './ops/register.ts';
import type { PieceSource, SourceFinder } from './piece/source.ts';
import type { SharedBlobs } from './store/blob-store.ts';
import type { SwarmConfig } from './swarm/config.ts';
import type { Swarm, SwarmModules, SwarmStatus } from './swarm/swarm.ts';
import { SwarmLife, outside } from './swarm-life.ts';
import { noKey, type SwarmCondition, swarmCondition } from './swarm-conditions.ts';

/** Longest a start may take; loading libp2p from a slow disk takes seconds. In ms. */
const START_MS = 30_000;
/** Longest an end may take before it is left to itself, in ms. */
const STOP_MS = 5_000;
/** A swarm that was up this long is no longer one that keeps failing, in ms. */
const STEADY_MS = 10_000;
/** Pauses between tries. A port that somebody freed is taken within half a minute. */
const BACKOFF = { first_ms: 1_000, longest_ms: 30_000 } as const;

/** What the daemon needs of a swarm that is up. */
export type RunningSwarm = Pick<Swarm, 'find' | 'status' | 'onPeer' | 'setDiskFull' | 'done'> &
  AsyncDisposable;

/** Starts a swarm; what it leaves behind when it fails is its own fault. The real one loads libp2p. */
export type StartSwarm = (
  modules: SwarmModules,
  config: SwarmConfig,
  options: { readonly signal: AbortSignal },
) => Promise<RunningSwarm>;

/** Loaded late: libp2p takes longer to load than everything else together. */
export const startSwarm: StartSwarm = async (modules, config, options) =>
  (await import('./swarm/swarm.ts')).Swarm.start(modules, config, options);

type Modules = {
  readonly store: SharedBlobs;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly register: MetricRegister;
  readonly conditions: ConditionReport;
  readonly start: StartSwarm;
  /** For jitter; `Math.random` by default. */
  readonly random?: () => number;
};

type Up = { readonly swarm: RunningSwarm; readonly life: SwarmLife; readonly since_ms: number };

/** The swarm, with its starts and its ends. Without one every answer is "nobody". */
export class SwarmSupervisor implements SourceFinder {
  readonly #modules: Modules;
  readonly #config: SwarmConfig;
  readonly #key: ClusterKeyFile;
  readonly #tried = Promise.withResolvers<undefined>();
  readonly #leave = new AbortController();
  #running: Promise<void> | undefined;
  #up: Up | undefined;
  #onSynced: () => void = () => undefined;

  constructor(modules: Modules, config: SwarmConfig) {
    this.#modules = modules;
    this.#config = config;
    this.#key = new ClusterKeyFile(modules.clock, config);
  }

  /** Resolves when the first try is over, whatever came of it. */
  get tried(): Promise<undefined> {
    return this.#tried.promise;
  }

  find(digest: Digest, size_bytes: number): readonly PieceSource[] {
    const up = this.#up;
    if (up === undefined) return [];
    const found = up.life.guard(() => up.swarm.find(digest, size_bytes), []);
    return found.map((source) => up.life.source(source));
  }

  /** Undefined while there is no swarm. */
  status(): (SwarmStatus & { readonly uptime_ms: number }) | undefined {
    const up = this.#up;
    const status = up?.life.guard(() => up.swarm.status(), undefined);
    if (up === undefined || status === undefined) return undefined;
    return { ...status, uptime_ms: this.#modules.clock.now_ms() - up.since_ms };
  }

  /** True: the disk is below its floor. Told again to a swarm that comes up later by whoever looks at the disk. */
  setDiskFull(full: boolean): void {
    const up = this.#up;
    up?.life.guard(() => up.swarm.setDiskFull(full), undefined);
  }

  /**
   * Keeps a swarm up until the signal aborts or `leave` is called. `onSynced` is called when a peer's whole inventory is in memory:
   * sources may have appeared. Rejects only for a defect of its own.
   */
  run(signal: AbortSignal, onSynced: () => void): Promise<void> {
    this.#onSynced = onSynced;
    this.#running ??= this.#keep(AbortSignal.any([signal, this.#leave.signal])).finally(() =>
      this.#tried.resolve(undefined),
    );
    return this.#running;
  }

  /** Says farewell to the peers, for good. Resolves when the swarm is gone or its time is over. */
  async leave(): Promise<void> {
    this.#leave.abort(new DaemonError('cancelled', 'the daemon leaves the swarm'));
    await this.#running;
  }

  async #keep(signal: AbortSignal): Promise<void> {
    let failures = 0;
    while (!signal.aborted) {
      const key = await this.#key.state();
      if (key === 'ENOENT') {
        this.#raise(noKey(this.#config.cluster_key_file));
        this.#tried.resolve(undefined);
        await this.#key.change(key, signal);
        continue;
      }
      const { up_ms, cause } = await this.#live(signal);
      this.#tried.resolve(undefined);
      failures = up_ms >= STEADY_MS ? 1 : failures + 1;
      const pause_ms = backoff_ms(BACKOFF, failures, this.#modules.random);
      // What is wrong with the key may also be that no file could be opened: a pause ends the wait for a change.
      if (cause === 'cluster_key') await this.#key.change(key, signal, pause_ms);
      else await this.#sleep(pause_ms, signal);
    }
  }

  /** One life from start to end. Never rejects. */
  async #live(signal: AbortSignal): Promise<{ up_ms: number; cause?: 'cluster_key' | 'other' }> {
    const { clock } = this.#modules;
    const key = await this.#key.content();
    const life = new SwarmLife();
    const aborted = whenAborted(signal, life.signal);
    const starting = life.enter(() => this.#start(life));
    let swarm: RunningSwarm;
    try {
      const late = this.#deadline(START_MS, 'the swarm did not start', life.signal);
      swarm = await Promise.race([starting, life.failed, late, aborted]);
    } catch (error) {
      life.end();
      // A start that comes late after all is undone.
      starting.then((late) => this.#dispose(life, late)).catch(() => undefined);
      return { up_ms: 0, cause: await this.#report(error, signal) };
    }
    const since_ms = clock.now_ms();
    let error: unknown;
    try {
      this.#rise({ swarm, life, since_ms });
      void this.#key.watch(key, life.signal, (condition) => this.#tellKey(condition));
      await Promise.race([swarm.done, life.failed, aborted]);
      error = new DaemonError('internal', 'the swarm ended by itself');
    } catch (caught) {
      error = caught;
    }
    const up_ms = clock.now_ms() - since_ms;
    life.end();
    // Told first: a daemon without a swarm and without a reason would pass for one that starts.
    const cause = await this.#report(error, signal);
    this.#up = undefined;
    await this.#dispose(life, swarm);
    return { up_ms, cause };
  }

  async #start(life: SwarmLife): Promise<RunningSwarm> {
    const { store, clock, logger, register, start } = this.#modules;
    const modules = {
      store: life.store(store),
      clock,
      logger,
      register: metricsOf(life, register),
    };
    return start(modules, this.#config, { signal: life.signal });
  }

  #rise(up: Up): void {
    const { conditions } = this.#modules;
    this.#up = up;
    this.#tried.resolve(undefined);
    conditions.clear('cluster_key');
    conditions.clear('swarm_listen');
    up.life.enter(() => up.swarm.onPeer({ onSynced: () => outside(this.#onSynced) }));
    void this.#steady(up);
  }

  #tellKey(condition: SwarmCondition | undefined): void {
    const { conditions } = this.#modules;
    if (condition === undefined) conditions.clear('cluster_key');
    else conditions.raise('cluster_key', condition);
  }

  async #steady({ life }: Up): Promise<void> {
    await this.#sleep(STEADY_MS, life.signal);
    if (!life.signal.aborted) this.#modules.conditions.clear('swarm_failed');
  }

  async #dispose(life: SwarmLife, swarm: RunningSwarm): Promise<void> {
    const over = new AbortController();
    try {
      await Promise.race([
        life.enter(async () => swarm[Symbol.asyncDispose]()),
        this.#deadline(STOP_MS, 'the swarm did not end', over.signal),
      ]);
    } catch (err) {
      // What it still holds keeps the next one from listening, and that is told then.
      this.#modules.logger.debug({ err }, 'swarm not closed in order');
    } finally {
      over.abort();
    }
  }

  /** What keeps the swarm away becomes a condition, unless it is the daemon that goes. */
  async #report(error: unknown, signal: AbortSignal): Promise<'cluster_key' | 'other'> {
    if (signal.aborted) return 'other';
    const condition = await swarmCondition(error, this.#config);
    this.#raise(condition);
    return condition.cause === 'cluster_key' ? 'cluster_key' : 'other';
  }

  #raise({ cause, ...condition }: SwarmCondition): void {
    const { conditions } = this.#modules;
    conditions.raise(cause, condition);
    // One reason at a time: what hindered the last try does not hinder this one any more.
    for (const other of ['cluster_key', 'swarm_listen', 'swarm_failed'] as const) {
      if (other !== cause) conditions.clear(other);
    }
  }

  /** Never rejects. */
  async #sleep(ms: number, signal: AbortSignal): Promise<void> {
    await this.#modules.clock.sleep(ms, { signal }).catch(() => undefined);
  }

  /** Rejects after the time; hangs when the signal came first, which ends the race another way. */
  async #deadline(ms: number, what: string, signal: AbortSignal): Promise<never> {
    await this.#sleep(ms, signal);
    if (signal.aborted) return new Promise(() => undefined);
    throw new DaemonError('deadline_exceeded', `${what} within ${ms / 1000} s`);
  }
}

/** Rejects with the signal's reason, unless `over` comes first. Nobody has to look at it. */
function whenAborted(signal: AbortSignal, over: AbortSignal): Promise<never> {
  const { promise, reject } = Promise.withResolvers<never>();
  promise.catch(() => undefined);
  const onAbort = (): void => reject(signal.reason as Error);
  if (signal.aborted) onAbort();
  else signal.addEventListener('abort', onAbort, { once: true, signal: over });
  return promise;
}

/** Metrics of one life: what a swarm that is gone would show is not shown. */
function metricsOf(life: SwarmLife, register: MetricRegister): MetricRegister {
  return {
    counter: (d) => register.counter(d),
    histogram: (d) => register.histogram(d),
    gauge: ({ collect, ...d }) =>
      register.gauge({
        ...d,
        ...(collect !== undefined && {
          collect: (set: Parameters<typeof collect>[0]) => {
            if (!life.signal.aborted) life.guard(() => collect(set), undefined);
          },
        }),
      }),
  };
}
