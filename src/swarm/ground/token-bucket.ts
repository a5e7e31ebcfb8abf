import type { Clock } from '../../base/clock.ts';

/** Lets `per_second` tokens through in the long run and `burst` at once. A rate of 0 means no limit. */
export class TokenBucket {
  readonly #clock: Pick<Clock, 'now_ms' | 'sleep'>;
  readonly #per_second: number;
  readonly #burst: number;
  #tokens: number;
  #at_ms: number;

  constructor(
    clock: Pick<Clock, 'now_ms' | 'sleep'>,
    config: { readonly per_second: number; readonly burst: number },
  ) {
    this.#clock = clock;
    this.#per_second = config.per_second;
    this.#burst = config.burst;
    this.#tokens = config.burst;
    this.#at_ms = clock.now_ms();
  }

  /** Takes one or more tokens if they are there. */
  tryTake(count: number): boolean {
    if (this.#per_second === 0) return true;
    this.#refill();
    if (this.#tokens < count) return false;
    this.#tokens -= count;
    return true;
  }

  /** Takes tokens on credit and waits until the debt is paid, so that large takes keep their order and the rate holds. */
  async take(count: number, signal: AbortSignal): Promise<void> {
    if (this.#per_second === 0) return;
    this.#refill();
    this.#tokens -= count;
    if (this.#tokens >= 0) return;
    await this.#clock.sleep((-this.#tokens / this.#per_second) * 1000, { signal });
  }

  #refill(): void {
    const now_ms = this.#clock.now_ms();
    const gained = ((now_ms - this.#at_ms) / 1000) * this.#per_second;
    this.#tokens = Math.min(this.#burst, this.#tokens + gained);
    this.#at_ms = now_ms;
  }
}
