import type { Clock } from '../../base/clock.ts';

/** A map of at most `max` entries whose entries end by themselves; when it is full the one used longest ago goes. */
export class ExpiringMap<V> {
  readonly #clock: Pick<Clock, 'now_ms'>;
  readonly #max: number;
  readonly #entries = new Map<string, { readonly value: V; readonly until_ms: number }>();

  constructor(clock: Pick<Clock, 'now_ms'>, max: number) {
    this.#clock = clock;
    this.#max = max;
  }

  /** The value while it is in force. */
  get(key: string): V | undefined {
    const entry = this.#entries.get(key);
    if (entry === undefined) return undefined;
    this.#entries.delete(key);
    if (entry.until_ms <= this.#clock.now_ms()) return undefined;
    this.#entries.set(key, entry);
    return entry.value;
  }

  /** Keeps `value` for `ms` from now. */
  set(key: string, value: V, ms: number): void {
    this.#entries.delete(key);
    const [oldest] = this.#entries.keys();
    if (this.#entries.size >= this.#max && oldest !== undefined) this.#entries.delete(oldest);
    this.#entries.set(key, { value, until_ms: this.#clock.now_ms() + ms });
  }

  delete(key: string): void {
    this.#entries.delete(key);
  }
}
