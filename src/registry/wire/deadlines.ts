import type { Clock } from '../../base/clock.ts';
import { DaemonError } from '../../base/errors.ts';

/**
 * The deadlines of one request: the whole of it, and the step it is at. `signal` aborts with `deadline_exceeded` at the first that passes,
 * or with the caller's reason. Each chunk of a body begins the step anew, so a step costs no timer of its own.
 */
export class Deadlines implements Disposable {
  readonly signal: AbortSignal;
  readonly #clock: Clock;
  readonly #what: string;
  readonly #late = new AbortController();
  readonly #over = new AbortController();
  readonly #total_due_ms: number;
  readonly #total_ms: number;
  #step_due_ms = Infinity;
  #step_ms = 0;
  #asleep_until_ms = Infinity;
  #wake: AbortController | undefined;

  constructor(
    clock: Clock,
    { what, total_ms, signal }: { what: string; total_ms: number; signal: AbortSignal },
  ) {
    this.#clock = clock;
    this.#what = what;
    this.#total_ms = total_ms;
    this.#total_due_ms = clock.now_ms() + total_ms;
    this.signal = AbortSignal.any([signal, this.#late.signal]);
    void this.#watch();
  }

  /** The next sign of life must come within `ms`. */
  step(ms: number): void {
    this.#step_ms = ms;
    this.#step_due_ms = this.#clock.now_ms() + ms;
    // Only an earlier end than the one slept for needs a new sleep.
    if (this.#step_due_ms < this.#asleep_until_ms) this.#wake?.abort();
  }

  [Symbol.dispose](): void {
    this.#over.abort();
  }

  async #watch(): Promise<void> {
    while (!this.#over.signal.aborted && !this.signal.aborted) {
      const due_ms = Math.min(this.#step_due_ms, this.#total_due_ms);
      const left_ms = due_ms - this.#clock.now_ms();
      if (left_ms <= 0) {
        this.#late.abort(this.#error(due_ms));
        return;
      }
      this.#asleep_until_ms = due_ms;
      this.#wake = new AbortController();
      const signal = AbortSignal.any([this.#wake.signal, this.#over.signal, this.signal]);
      // Woken: the loop looks again at what is due.
      await this.#clock.sleep(left_ms, { signal }).catch(() => undefined);
    }
  }

  #error(due_ms: number): DaemonError {
    const limit_ms = due_ms === this.#total_due_ms ? this.#total_ms : this.#step_ms;
    const how = due_ms === this.#total_due_ms ? 'took longer than' : 'sent nothing for';
    return new DaemonError('deadline_exceeded', `${this.#what} ${how} ${limit_ms} ms`, {
      limit_ms,
    });
  }
}
