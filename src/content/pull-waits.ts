import type { PullTicket } from '../pull/pull-port.ts';

/**
 * Most streams that wait for peers at a time; a pull beyond it goes to the registry. containerd asks for tens. Well below the streams a
 * connection may have (1000): with all of them waiting, a call within containerd's transaction would queue behind them.
 */
const MAX_WAITING = 400;

/** Most refs remembered as begun by us. Forgetting one only means that a liar is not named. */
const MAX_PREFIXED = 4096;

/**
 * What the streams of one door know of each other: which refs wait for peers, so that `Status` can show the growth, and
 * which ingests begin with bytes of ours, so that a refuted digest reaches those who vouched for them.
 */
export class PullWaits {
  readonly #tickets = new Map<string, PullTicket>();
  readonly #prefixed = new Set<string>();

  /** True while one more stream may wait. */
  get room(): boolean {
    return this.#tickets.size < MAX_WAITING;
  }

  get waiting(): number {
    return this.#tickets.size;
  }

  add(ref: string, ticket: PullTicket): void {
    this.#tickets.set(ref, ticket);
  }

  /** The stream of `ref` waits no longer. */
  remove(ref: string, ticket: PullTicket): void {
    if (this.#tickets.get(ref) === ticket) this.#tickets.delete(ref);
  }

  /** Contiguous bytes that peers have delivered for a waiting ref; 0 for any other. */
  progress_bytes(ref: string): number {
    return this.#tickets.get(ref)?.progress_bytes() ?? 0;
  }

  /** The ingest of `ref` begins with bytes from peers from now on. */
  markPrefixed(ref: string): void {
    if (this.#prefixed.size >= MAX_PREFIXED) {
      for (const oldest of this.#prefixed) {
        this.#prefixed.delete(oldest);
        break;
      }
    }
    this.#prefixed.add(ref);
  }

  /** The ingest of `ref` is gone or empty. Returns whether it began with bytes of ours. */
  forgetPrefixed(ref: string): boolean {
    return this.#prefixed.delete(ref);
  }
}
