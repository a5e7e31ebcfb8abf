import type { Clock } from '../../base/clock.ts';
import { ASSUMED_PATIENCE_MS, MAX_TURNS } from '../ground/limits.ts';
import { MAX_RETRY_AFTER_MS } from './piece-protocol.ts';

/** Part of the asker's patience that may be waited away here; the rest is for the way there and back. */
const WAITED_SHARE = 0.5;
/** Time one piece holds a slot until that was measured, in ms: 4 MiB at 20 MB/s. */
const FIRST_GUESS_MS = 200;
/** Weight of the newest piece in what a slot takes. */
const EWMA_WEIGHT = 0.2;
/** Shortest time to come back after, in ms: below it the answers cost more than they win. */
const LEAST_RETRY_MS = 50;
/** Who was told "busy" keeps the turn this much longer than told, in ms: a round trip and the timers of both ends. */
const TURN_GRACE_MS = 500;

/** A hold on one upload slot; dispose it when the bytes are sent. */
export interface UploadSlot {
  [Symbol.dispose](): void;
}

/** No slot in time: when to ask again, in ms, so as to be there a little before the turn comes. */
export type Busy = { readonly retry_after_ms: number };

/** What an asker says of itself. */
type Asking = {
  /** Peer id: one turn per peer, however many streams it has. */
  readonly asker: string;
  /** How long it has been waiting for bytes, and how long it will; 0 = unknown. */
  readonly waited_ms: number;
  readonly patience_ms: number;
};

type Waiter = { readonly asker: string; readonly grant: () => void };

/**
 * How many pieces leave this host at once. A slot bounds memory and disk: whoever holds one has one piece of up to 4 MiB read and not yet
 * sent, so `slots` x 4 MiB is the most that serving holds, and no more reads than that run at a time.
 *
 * Peers take turns piece by piece. Who cannot begin within half of the asker's patience is told so at once, with the time until its turn;
 * who comes back then has kept its place, so nobody starves behind those who ask more often. A free slot waits for nobody.
 */
export class UploadSlots {
  readonly #clock: Clock;
  readonly #limit: number;
  readonly #max_waiting: number;
  readonly #waiters: Waiter[] = [];
  /** Peers that wait or were told to come back, in the order of their turns, and until when the turn is kept. */
  readonly #turns = new Map<string, number>();
  /** When each slot in use was taken, the oldest first. */
  readonly #since_ms = new Map<symbol, number>();
  #used = 0;
  #service_ms = FIRST_GUESS_MS;
  #isMeasured = false;

  constructor(
    modules: { readonly clock: Clock },
    config: { readonly slots: number; readonly max_waiting: number },
  ) {
    this.#clock = modules.clock;
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

  /** Those that wait now, at most `max_waiting`. */
  get waiting(): number {
    return this.#waiters.length;
  }

  /** A slot, now or within half of the asker's patience, or how busy we are. Rejects with the signal's reason, and then keeps no turn. */
  async acquire(asking: Asking, signal: AbortSignal): Promise<UploadSlot | Busy> {
    signal.throwIfAborted();
    const { asker } = asking;
    if (this.#used < this.#limit) {
      this.#used += 1;
      this.#turns.delete(asker);
      return this.#slot();
    }
    const expected_ms = this.#untilTurn_ms(asker);
    const patience_ms = asking.patience_ms || ASSUMED_PATIENCE_MS;
    const share_ms = patience_ms * WAITED_SHARE;
    const may_wait_ms = share_ms - asking.waited_ms;
    if (expected_ms > may_wait_ms || this.#waiters.length >= this.#max_waiting) {
      return this.#busy(asker, expected_ms - share_ms / 2);
    }
    if (await this.#wait(asker, may_wait_ms, signal)) return this.#slot();
    return this.#busy(asker, this.#untilTurn_ms(asker) - share_ms / 2);
  }

  /** The peer wants nothing any more: it loses its turn, unless another stream of it waits. */
  forget(asker: string): void {
    if (!this.#isWaiting(asker)) this.#turns.delete(asker);
  }

  /** True when it is this one's turn, false when the time ran out. */
  async #wait(asker: string, ms: number, signal: AbortSignal): Promise<boolean> {
    this.#turns.set(asker, Infinity);
    const end = new AbortController();
    const granted = Promise.withResolvers<boolean>();
    const waiter: Waiter = { asker, grant: () => granted.resolve(true) };
    this.#waiters.push(waiter);
    const either = AbortSignal.any([signal, end.signal]);
    this.#clock.sleep(ms, { signal: either }).then(
      () => granted.resolve(false),
      () => granted.reject(signal.reason as Error),
    );
    try {
      return await granted.promise;
    } finally {
      end.abort();
      const at = this.#waiters.indexOf(waiter);
      if (at >= 0) this.#waiters.splice(at, 1);
      if (signal.aborted) this.forget(asker);
    }
  }

  #busy(asker: string, after_ms: number): Busy {
    const least_ms = Math.max(LEAST_RETRY_MS, Math.round(after_ms));
    const retry_after_ms = Math.min(least_ms, MAX_RETRY_AFTER_MS);
    const isWaiting = this.#isWaiting(asker);
    const until_ms = this.#clock.now_ms() + retry_after_ms + TURN_GRACE_MS;
    if (isWaiting || this.#turns.has(asker) || this.#turns.size < MAX_TURNS) {
      this.#turns.set(asker, isWaiting ? Infinity : until_ms);
    }
    return { retry_after_ms };
  }

  /** Time until a slot comes round to this peer when every turn before it takes one piece. */
  #untilTurn_ms(asker: string): number {
    const now_ms = this.#clock.now_ms();
    let before = 0;
    for (const [other, until_ms] of this.#turns) {
      if (other === asker) break;
      if (until_ms <= now_ms) this.#turns.delete(other);
      else before += 1;
    }
    // A piece that has been leaving for longer than usual says more than those before it.
    const [oldest_ms = now_ms] = this.#since_ms.values();
    const service_ms = Math.max(this.#service_ms, now_ms - oldest_ms);
    return ((before + 1) * service_ms) / this.#limit;
  }

  #isWaiting(asker: string): boolean {
    return this.#waiters.some((waiter) => waiter.asker === asker);
  }

  #slot(): UploadSlot {
    const since_ms = this.#clock.now_ms();
    const hold = Symbol('slot');
    this.#since_ms.set(hold, since_ms);
    return {
      [Symbol.dispose]: () => {
        if (!this.#since_ms.delete(hold)) return;
        this.#took(this.#clock.now_ms() - since_ms);
        // The slot passes on without being free in between, so nobody can overtake the queue.
        if (!this.#passOn()) this.#used -= 1;
      },
    };
  }

  #took(ms: number): void {
    this.#service_ms = this.#isMeasured
      ? this.#service_ms + EWMA_WEIGHT * (ms - this.#service_ms)
      : ms;
    this.#isMeasured = true;
  }

  #passOn(): boolean {
    for (const asker of this.#turns.keys()) {
      const at = this.#waiters.findIndex((w) => w.asker === asker);
      if (at < 0) continue;
      const [next] = this.#waiters.splice(at, 1);
      this.#turns.delete(asker);
      // Another stream of the same peer stands at the end again.
      if (this.#isWaiting(asker)) this.#turns.set(asker, Infinity);
      next!.grant();
      return true;
    }
    return false;
  }
}
