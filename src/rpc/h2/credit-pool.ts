import type { Clock } from '../../base/clock.ts';

/**
 * Largest request message: containerd's clients are set to 16 MiB of payload in one message, the slack is for the
 * fields around it.
 */
export const MAX_MESSAGE_BYTES = 16 * 1024 * 1024 + 65_536;
/** Every call's own window. HTTP/2's default (RFC 9113, 6.9.2), so that it also holds for what comes before our SETTINGS. */
export const OWN_WINDOW = 65_535;
/**
 * By how much the window of a call that sends more than `OWN_WINDOW` in one message is widened for good, while there are
 * such places: one of containerd's WRITEs (1 MiB) then fits and never waits for a WINDOW_UPDATE.
 */
export const WIDE_BYTES = 1024 * 1024;
const WIDE_CALLS = 32;
/** For messages larger than their call's window: two of the largest. */
const CLAIMABLE_BYTES = 2 * MAX_MESSAGE_BYTES;
/** Calls of all connections whose bytes may still be here: open, or reset with a handler that still runs. */
const MAX_CALLS = 4000;
const TICK_MS = 1000;
/** Seconds in which others wait, after which a message with a granted claim must have come. */
const PATIENCE_TICKS = 20;

/** Room for the rest of one message. */
export interface Claim {
  /** At most `MAX_MESSAGE_BYTES`; stays as it is until the release. */
  readonly claimed_bytes: number;
  /** Whose it is: connections take turns. */
  readonly owner: object;
  granted(): void;
  /** The message did not come in time, and others wait: to be released at once. */
  expired(): void;
}

/**
 * The memory for request messages, over all connections of a server. A client is given flow-control credit (RFC 9113, 6.9) only
 * for bytes that have a place here, so that nothing but the client's own sending ever waits:
 *
 * - each call has `OWN_WINDOW`, in which every call but a WRITE with payload fits: those never wait for others;
 * - the first 32 calls that send more are widened by 1 MiB each;
 * - what does not fit that way claims its whole rest before any credit for it is given. Claims are granted one after the other,
 *   connections in turn; the pool holds any single one, and a granted message depends on nobody else to become whole, so
 *   there is no deadlock. A client that stops within its message loses the call after 20 s in which others waited.
 *
 * What lies here at most: 4000 x 64 KiB + 32 MiB + 32 MiB (314 MiB); of one connection 2000 x 64 KiB and the same 64 MiB (189 MiB).
 */
export class CreditPool {
  readonly #clock: Clock;
  /** First come, first served within a connection; the order of connections is the order of turns. */
  readonly #waiting = new Map<object, Set<Claim>>();
  /** Granted, and the message not yet at its handler: the ticks that others have waited for it. */
  readonly #arriving = new Map<Claim, number>();
  readonly #granted = new Set<Claim>();
  #free_bytes = CLAIMABLE_BYTES;
  #wide = 0;
  #calls = 0;
  #serving = false;
  #watch: AbortController | undefined;

  constructor(modules: { readonly clock: Clock }) {
    this.#clock = modules.clock;
  }

  /** A call begins; false when there are too many. */
  enter(): boolean {
    if (this.#calls >= MAX_CALLS) return false;
    this.#calls += 1;
    return true;
  }

  /** A call that entered has ended, and nobody works on its messages any more. */
  leave(): void {
    this.#calls -= 1;
  }

  /** Takes `WIDE_BYTES` for a call, when there are any left. */
  widen(): boolean {
    if (this.#wide >= WIDE_CALLS) return false;
    this.#wide += 1;
    return true;
  }

  narrow(): void {
    this.#wide -= 1;
  }

  /** Waits for room; `granted` may be called at once. */
  claim(claim: Claim): void {
    const claims = this.#waiting.get(claim.owner) ?? new Set();
    this.#waiting.set(claim.owner, claims.add(claim));
    this.#serve();
  }

  /** The claim's message is whole and taken up: it cannot come too late any more. */
  arrived(claim: Claim): void {
    this.#arriving.delete(claim);
  }

  /** The claim is no longer needed, granted or not. */
  release(claim: Claim): void {
    if (this.#granted.delete(claim)) {
      this.#arriving.delete(claim);
      this.#free_bytes += claim.claimed_bytes;
    } else {
      const claims = this.#waiting.get(claim.owner);
      claims?.delete(claim);
      if (claims?.size === 0) this.#waiting.delete(claim.owner);
    }
    this.#serve();
  }

  /** Grants what there is room for. Never one out of turn: a large claim would wait behind small ones for ever. */
  #serve(): void {
    // A grant that fails ends a connection, whose claims come back here.
    if (this.#serving) return;
    this.#serving = true;
    for (;;) {
      const claim = this.#next();
      if (claim === undefined || claim.claimed_bytes > this.#free_bytes) break;
      this.#take(claim);
      claim.granted();
    }
    this.#serving = false;
    if (this.#waiting.size > 0) this.#startWatch();
    else this.#watch?.abort();
  }

  #next(): Claim | undefined {
    for (const [claims] of this.#waiting.values()) return claims;
    return undefined;
  }

  #take(claim: Claim): void {
    const { owner, claimed_bytes } = claim;
    const claims = this.#waiting.get(owner)!;
    claims.delete(claim);
    this.#waiting.delete(owner);
    if (claims.size > 0) this.#waiting.set(owner, claims);
    this.#free_bytes -= claimed_bytes;
    this.#granted.add(claim);
    this.#arriving.set(claim, 0);
  }

  #startWatch(): void {
    if (this.#watch !== undefined) return;
    const watch = new AbortController();
    this.#watch = watch;
    const ended = (): void => {
      this.#watch = undefined;
      if (this.#waiting.size > 0) this.#startWatch();
    };
    this.#tick(watch.signal).then(ended, ended);
  }

  /** Ticks are counted, not time: a daemon or host that was stopped for a while blames nobody for it. */
  async #tick(signal: AbortSignal): Promise<void> {
    for (;;) {
      await this.#clock.sleep(TICK_MS, { signal });
      for (const [claim, ticks] of [...this.#arriving]) {
        this.#arriving.set(claim, ticks + 1);
        if (ticks + 1 < PATIENCE_TICKS) continue;
        this.#arriving.delete(claim);
        claim.expired();
      }
    }
  }
}
