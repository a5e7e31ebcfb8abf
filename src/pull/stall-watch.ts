import type { Clock } from '../base/clock.ts';
import type { SourceStanding } from '../piece/standing.ts';
import { slept } from './deadline.ts';
import { PULL_LIMITS } from './pull-config.ts';

export type StallKind = 'silent' | 'slow';

type StallConfig = {
  readonly first_byte_timeout_ms: number;
  readonly min_bytes_per_second: number;
};

/** Measures one request: bytes over time. Pure but for the times it is given. */
export class FlightMeter {
  readonly started_ms: number;
  readonly #config: StallConfig;
  readonly #samples: { readonly at_ms: number; readonly bytes: number }[] = [];
  #received_bytes = 0;
  #last_ms: number;

  constructor(now_ms: number, config: StallConfig) {
    this.#config = config;
    this.started_ms = now_ms;
    this.#last_ms = now_ms;
  }

  get received_bytes(): number {
    return this.#received_bytes;
  }

  /** `bytes` are here in all. Returns how many are new; numbers that do not grow are no progress. */
  progress(now_ms: number, bytes: number): number {
    const grown = bytes - this.#received_bytes;
    if (!(grown > 0)) return 0;
    const last = this.#samples.at(-1);
    if (last === undefined || now_ms - last.at_ms >= PULL_LIMITS.rate_step_ms) {
      this.#samples.push({ at_ms: now_ms, bytes: this.#received_bytes });
      // One sample older than the window is enough to judge the whole of it.
      while ((this.#samples[1]?.at_ms ?? now_ms) <= now_ms - PULL_LIMITS.rate_window_ms) {
        this.#samples.shift();
      }
    }
    this.#received_bytes = bytes;
    this.#last_ms = now_ms;
    return grown;
  }

  /** What is wrong with it, if anything. `source_ms`: when the source last sent anything; requests that wait behind others are not silent. */
  verdict(now_ms: number, source_ms: number): StallKind | undefined {
    if (now_ms >= this.#silentAt(source_ms)) return 'silent';
    const first = this.#samples[0];
    if (first === undefined || now_ms - first.at_ms < PULL_LIMITS.rate_window_ms) return undefined;
    const from = this.#samples.findLast((s) => now_ms - s.at_ms >= PULL_LIMITS.rate_window_ms);
    const since = from ?? first;
    const rate = ((this.#received_bytes - since.bytes) * 1000) / (now_ms - since.at_ms);
    return rate < this.#config.min_bytes_per_second ? 'slow' : undefined;
  }

  /** When to look again. */
  due_ms(now_ms: number, source_ms: number): number {
    const first = this.#samples[0];
    const silent = this.#silentAt(source_ms);
    if (first === undefined) return silent;
    const judged = Math.max(
      first.at_ms + PULL_LIMITS.rate_window_ms,
      now_ms + PULL_LIMITS.rate_step_ms,
    );
    return Math.min(silent, judged);
  }

  /** Expected ms until `length` bytes are here; undefined while it is too young to tell, Infinity when nothing came in that time. */
  eta_ms(now_ms: number, length: number): number | undefined {
    const age_ms = now_ms - this.started_ms;
    if (age_ms < PULL_LIMITS.rate_step_ms) return undefined;
    return ((length - this.#received_bytes) * age_ms) / this.#received_bytes;
  }

  #silentAt(source_ms: number): number {
    const last = this.#received_bytes > 0 ? this.#last_ms : Math.max(this.#last_ms, source_ms);
    return last + this.#config.first_byte_timeout_ms;
  }
}

/** A request under watch. */
export type Watched = {
  readonly meter: FlightMeter;
  /** Of its source: what comes from there is life. */
  readonly standing: Pick<SourceStanding, 'heard_ms'>;
  /** Called at most once per kind. */
  readonly onStall: (kind: StallKind) => void;
};

/** One timer for the requests of all sessions; none while nothing is in flight. */
export class StallWatch {
  readonly #clock: Clock;
  readonly #watched = new Map<Watched, Set<StallKind>>();
  #idle = new AbortController();
  #running = false;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Watches until the returned function is called. */
  watch(flight: Watched): () => void {
    this.#watched.set(flight, new Set());
    if (!this.#running) void this.#run();
    return () => {
      this.#watched.delete(flight);
      if (this.#watched.size === 0) this.#idle.abort();
    };
  }

  async #run(): Promise<void> {
    this.#running = true;
    while (this.#watched.size > 0) {
      if (this.#idle.signal.aborted) this.#idle = new AbortController();
      const now = this.#clock.now_ms();
      let due = Number.POSITIVE_INFINITY;
      for (const [flight, told] of [...this.#watched])
        due = Math.min(due, this.#look(flight, told, now));
      // New requests fall due no earlier than those already seen, because the timeout is the same for all.
      await slept(this.#clock, Math.max(1, due - now), this.#idle.signal);
    }
    this.#running = false;
  }

  #look(flight: Watched, told: Set<StallKind>, now_ms: number): number {
    const source_ms = flight.standing.heard_ms;
    const kind = flight.meter.verdict(now_ms, source_ms);
    if (kind === undefined) return flight.meter.due_ms(now_ms, source_ms);
    if (!told.has(kind)) {
      told.add(kind);
      flight.onStall(kind);
    }
    return now_ms + PULL_LIMITS.rate_step_ms;
  }
}
