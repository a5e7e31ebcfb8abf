import type { Clock } from '../../base/clock.ts';

/** Keys that are remembered; when they are used up the oldest may speak again early. */
const MAX_KEYS = 256;
const MINUTE_MS = 60_000;

/** Allows one event per key and minute, for log lines that a stranger can provoke. */
export class PerMinute {
  readonly #clock: Pick<Clock, 'now_ms'>;
  readonly #last_ms = new Map<string, number>();

  constructor(clock: Pick<Clock, 'now_ms'>) {
    this.#clock = clock;
  }

  allows(key: string): boolean {
    const now_ms = this.#clock.now_ms();
    if (now_ms - (this.#last_ms.get(key) ?? -Infinity) < MINUTE_MS) return false;
    this.#last_ms.delete(key);
    if (this.#last_ms.size >= MAX_KEYS) {
      const oldest = this.#last_ms.keys().next();
      if (!oldest.done) this.#last_ms.delete(oldest.value);
    }
    this.#last_ms.set(key, now_ms);
    return true;
  }
}
