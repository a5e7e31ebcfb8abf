import type { Clock } from '../../src/base/clock.ts';

type Timer = { readonly at_ms: number; readonly fire: () => void };

/** A clock that stands still until a test moves it. `pending` tells how many waits are open. */
export class FakeClock implements Clock {
  #now_ms = 1000;
  #timers: Timer[] = [];

  now_ms(): number {
    return this.#now_ms;
  }

  wall_ns(): bigint {
    return 1_700_000_000_000_000_000n + BigInt(Math.round(this.#now_ms * 1e6));
  }

  get pending(): number {
    return this.#timers.length;
  }

  timeout(ms: number): AbortSignal {
    const controller = new AbortController();
    this.#add(ms, () =>
      controller.abort(new DOMException('The operation timed out', 'TimeoutError')),
    );
    return controller.signal;
  }

  sleep(ms: number, { signal }: { signal?: AbortSignal } = {}): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) {
        reject(signal.reason as Error);
        return;
      }
      const timer = this.#add(ms, () => {
        signal?.removeEventListener('abort', onAbort);
        resolve();
      });
      const onAbort = (): void => {
        this.#timers = this.#timers.filter((t) => t !== timer);
        reject(signal?.reason as Error);
      };
      signal?.addEventListener('abort', onAbort, { once: true });
    });
  }

  /** Moves time forward, firing what falls due in order, and lets promise callbacks run in between. */
  async advance(ms: number): Promise<void> {
    const end_ms = this.#now_ms + ms;
    for (;;) {
      await settle();
      const due = this.#timers
        .filter((t) => t.at_ms <= end_ms)
        .sort((a, b) => a.at_ms - b.at_ms)[0];
      if (due === undefined) break;
      this.#timers = this.#timers.filter((t) => t !== due);
      this.#now_ms = Math.max(this.#now_ms, due.at_ms);
      due.fire();
    }
    this.#now_ms = end_ms;
    await settle();
  }

  #add(ms: number, fire: () => void): Timer {
    const timer = { at_ms: this.#now_ms + ms, fire };
    this.#timers.push(timer);
    return timer;
  }
}

/** Lets every promise callback and immediate that is ready run, a few rounds deep. */
export async function settle(rounds = 8): Promise<void> {
  for (let i = 0; i < rounds; i++) await new Promise((resolve) => setImmediate(resolve));
}
