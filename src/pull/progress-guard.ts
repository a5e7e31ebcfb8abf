import type { RequestSize } from '../piece/standing.ts';
import type { PullConfig } from './pull-config.ts';
import type { Flight } from './flight.ts';
import type { Member, Roster } from './roster.ts';

type Work = {
  readonly roster: Roster;
  /** Whether somebody waits now. */
  readonly waited: () => boolean;
};

type Mark = { readonly at_ms: number; readonly bytes: number; readonly given: number };

/**
 * How long one attempt goes on without getting anywhere. containerd has no deadline, so these are the last ones: holders that are only
 * busy are waited for, and what moves too little is given up.
 */
export class ProgressGuard {
  readonly #work: Work;
  readonly #config: PullConfig;
  #received_bytes = 0;
  #mark: Mark;
  #starved_ms: number | undefined;

  constructor(work: Work, config: PullConfig, now_ms: number, candidates: readonly Member[]) {
    this.#work = work;
    this.#config = config;
    this.#mark = this.#markAt(now_ms, candidates);
  }

  /** So many bytes came for this attempt. */
  received(bytes: number): void {
    this.#received_bytes += bytes;
  }

  /** A piece is written: whoever was busy, it goes on. */
  landed(): void {
    this.#starved_ms = undefined;
  }

  /** When `isStuck` is to be asked again while somebody waits. */
  get due_ms(): number {
    return this.#mark.at_ms + this.#config.no_progress_ms;
  }

  /**
   * True when less than the minimum rate came over `no_progress_ms` while somebody waited. Without a request of that age the session is
   * queueing: then it is the sources that must give that much, to whichever session.
   */
  isStuck(now_ms: number, flights: Iterable<Flight>, candidates: readonly Member[]): boolean {
    const span_ms = this.#config.no_progress_ms;
    if (!this.#work.waited()) this.#mark = this.#markAt(now_ms, candidates);
    if (now_ms - this.#mark.at_ms < span_ms) return false;
    const least = Math.max(1, (this.#config.min_bytes_per_second * span_ms) / 1000);
    const before = this.#mark;
    this.#mark = this.#markAt(now_ms, candidates);
    const is_served = [...flights].some((f) => now_ms - f.meter.started_ms >= span_ms);
    const came = is_served ? this.#mark.bytes - before.bytes : this.#mark.given - before.given;
    return came < least;
  }

  /**
   * Nobody can be asked, for those who could are busy until `busy_ms`. Until when that is borne: as long as one of them keeps its word
   * about when it will be free, `no_progress_ms`; else `busy_wait_ms`. Counts from the first call since a piece landed, and anew from the
   * last byte that one of them sent to whichever session of ours: that is a queue, and its turn comes.
   */
  starved(now_ms: number, candidates: readonly Member[], size: RequestSize): number {
    this.#starved_ms ??= now_ms;
    const { busy_wait_ms, no_progress_ms } = this.#config;
    const isPromised = candidates.some((m) => this.#work.roster.keepsWord(m, size));
    const heard_ms = candidates.map((m) => m.source.standing.heard_ms);
    const since_ms = Math.max(this.#starved_ms, ...heard_ms);
    return since_ms + (isPromised ? Math.max(no_progress_ms, busy_wait_ms) : busy_wait_ms);
  }

  #markAt(at_ms: number, candidates: readonly Member[]): Mark {
    const given = candidates.reduce((sum, m) => sum + m.source.standing.received_bytes, 0);
    return { at_ms, bytes: this.#received_bytes, given };
  }
}
