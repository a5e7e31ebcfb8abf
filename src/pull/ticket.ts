import { untilAborted } from './deadline.ts';
import type { PullOutcome, PullTicket } from './pull-port.ts';

/** The session, as its tickets see it. */
export interface TicketOwner {
  progress_bytes(): number;
  /** Resolves when the session has an outcome. */
  ended(): Promise<undefined>;
  /** The outcome for this ticket; prefix 0 when the session has none. */
  outcome(ticket: Ticket): PullOutcome;
  /** Prefix 0, owned by nobody. */
  nothing(): PullOutcome;
  release(ticket: Ticket): void;
}

/** One waiter's hold on a session. A small ticket may be expired: it then settles with nothing, whatever the session does. */
export class Ticket implements PullTicket {
  readonly #owner: TicketOwner;
  readonly #expired = Promise.withResolvers<undefined>();
  #over = false;
  #released = false;
  #outcome: PullOutcome | undefined;

  constructor(owner: TicketOwner) {
    this.#owner = owner;
  }

  get expired(): boolean {
    return this.#over;
  }

  progress_bytes(): number {
    return this.#owner.progress_bytes();
  }

  async settled(signal: AbortSignal): Promise<PullOutcome> {
    signal.throwIfAborted();
    if (this.#outcome !== undefined) return this.#outcome;
    await untilAborted(Promise.race([this.#owner.ended(), this.#expired.promise]), signal);
    this.#outcome ??=
      this.#over || this.#released ? this.#owner.nothing() : this.#owner.outcome(this);
    return this.#outcome;
  }

  release(): void {
    if (this.#released) return;
    this.#released = true;
    this.#owner.release(this);
  }

  /** Its time is up. */
  expire(): void {
    this.#over = true;
    this.#expired.resolve(undefined);
  }
}

/** The ticket of a blob that is here already. */
export class CompleteTicket implements PullTicket {
  readonly #size_bytes: number;

  constructor(size_bytes: number) {
    this.#size_bytes = size_bytes;
  }

  progress_bytes(): number {
    return this.#size_bytes;
  }

  settled(signal: AbortSignal): Promise<PullOutcome> {
    return signal.aborted
      ? Promise.reject(signal.reason as Error)
      : Promise.resolve({ kind: 'complete' });
  }

  release(): void {
    // Nothing is held.
  }
}
