type Waiter = { readonly grant: () => void };

/** A hold on one upload slot; dispose it when the bytes are sent. */
export interface UploadSlot {
  [Symbol.dispose](): void;
}

/**
 * How many pieces leave this host at once. Every peer stream waits for at most one slot, first come first served, so
 * peers share them evenly; when too many wait already the answer is "busy" and the asker goes elsewhere.
 */
export class UploadSlots {
  readonly #limit: number;
  readonly #max_waiting: number;
  readonly #waiters: Waiter[] = [];
  #used = 0;

  constructor(config: { readonly slots: number; readonly max_waiting: number }) {
    this.#limit = config.slots;
    this.#max_waiting = config.max_waiting;
  }

  /** Memory. Share of the slots in use and waited for, 0..1. */
  get load(): number {
    return Math.min(1, (this.#used + this.#waiters.length) / (this.#limit + this.#max_waiting));
  }

  get used(): number {
    return this.#used;
  }

  /** A slot, or undefined = busy. Rejects with the signal's reason. */
  async acquire(signal: AbortSignal): Promise<UploadSlot | undefined> {
    signal.throwIfAborted();
    if (this.#used < this.#limit) {
      this.#used += 1;
      return this.#slot();
    }
    if (this.#waiters.length >= this.#max_waiting) return undefined;
    await new Promise<void>((resolve, reject) => {
      const onAbort = (): void => {
        this.#waiters.splice(this.#waiters.indexOf(waiter), 1);
        reject(signal.reason as Error);
      };
      const waiter: Waiter = {
        grant: () => {
          signal.removeEventListener('abort', onAbort);
          resolve();
        },
      };
      signal.addEventListener('abort', onAbort, { once: true });
      this.#waiters.push(waiter);
    });
    return this.#slot();
  }

  #slot(): UploadSlot {
    let held = true;
    return {
      [Symbol.dispose]: () => {
        if (!held) return;
        held = false;
        const next = this.#waiters.shift();
        // The slot passes on without being free in between, so nobody can overtake the queue.
        if (next === undefined) this.#used -= 1;
        else next.grant();
      },
    };
  }
}
