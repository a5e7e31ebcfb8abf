import type { Clock } from '../base/clock.ts';
import { PULL_LIMITS } from './pull-config.ts';

type Load = {
  in_flight: number;
  /** Bytes per millisecond, smoothed; undefined until a first piece is here. */
  rate: number | undefined;
  activity_ms: number;
  finished_ms: number;
  received_bytes: number;
};

/**
 * What every source is doing for all sessions together, by its id: its depth holds for the host behind it, not per blob.
 * Rates and activity live here as well, because a request that queues behind another session's is not a stall.
 */
export class SourceLoads {
  readonly #clock: Clock;
  readonly #loads = new Map<string, Load>();
  readonly #listeners = new Set<() => void>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** A request to the source begins. */
  begin(id: string): void {
    this.#load(id).in_flight++;
  }

  /** So many bytes came from the source. */
  touch(id: string, bytes: number): void {
    const load = this.#load(id);
    load.activity_ms = this.#clock.now_ms();
    load.received_bytes += bytes;
  }

  /** A request ended; `bytes` > 0 when it delivered. Tells every listener that depth is free. */
  end(id: string, started_ms: number, bytes: number): void {
    const load = this.#load(id);
    load.in_flight--;
    const now = this.#clock.now_ms();
    if (bytes > 0) {
      // Pipelined requests wait for each other: the source worked on this one only since the last one ended.
      const worked_ms = Math.max(0.1, now - Math.max(started_ms, load.finished_ms));
      const rate = bytes / worked_ms;
      load.rate = load.rate === undefined ? rate : load.rate * 0.7 + rate * 0.3;
      load.finished_ms = now;
    }
    for (const listener of this.#listeners) listener();
  }

  in_flight(id: string): number {
    return this.#loads.get(id)?.in_flight ?? 0;
  }

  /** Bytes per millisecond of recent pieces. */
  rate(id: string): number | undefined {
    return this.#loads.get(id)?.rate;
  }

  /** When bytes last came from it, for whichever blob; -Infinity when never. */
  activity_ms(id: string): number {
    return this.#loads.get(id)?.activity_ms ?? Number.NEGATIVE_INFINITY;
  }

  /** Bytes that came from it so far, for all sessions together. */
  received_bytes(id: string): number {
    return this.#loads.get(id)?.received_bytes ?? 0;
  }

  /** Calls `listener` whenever a request ends. Returns the unsubscribe function. */
  onFreed(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  #load(id: string): Load {
    const known = this.#loads.get(id);
    if (known !== undefined) return known;
    if (this.#loads.size >= PULL_LIMITS.loads_max) this.#forget();
    const never = Number.NEGATIVE_INFINITY;
    const load = {
      in_flight: 0,
      rate: undefined,
      activity_ms: never,
      finished_ms: never,
      received_bytes: 0,
    };
    this.#loads.set(id, load);
    return load;
  }

  #forget(): void {
    for (const [id, load] of this.#loads) {
      if (load.in_flight > 0) continue;
      this.#loads.delete(id);
      return;
    }
  }
}
