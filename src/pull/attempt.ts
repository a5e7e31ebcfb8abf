import type { ExclusionReason } from '../piece/exclusion.ts';
import { PIECE_BYTES, pieceCount, pieceLength } from '../piece/layout.ts';
import type { UnverifiedPiece } from '../piece/source.ts';
import type { RequestSize } from '../piece/standing.ts';
import type { StagedBlob } from '../store/blob-store.ts';
import { slept } from './deadline.ts';
import type { DepthWaiter, Lane } from './fetch-gate.ts';
import { Flight } from './flight.ts';
import type { Claim, ListClaims } from './list-claims.ts';
import { type Assignment, plan } from './planner.ts';
import { PULL_LIMITS, type PullConfig } from './pull-config.ts';
import type { PullModules } from './pull-modules.ts';
import { ProgressGuard } from './progress-guard.ts';
import type { Member, Roster } from './roster.ts';
import { secondOpinion } from './second-opinion.ts';
import type { StallKind } from './stall-watch.ts';

/**
 * Why an attempt ended: `all` = every piece is written; `dry` = no source can give another piece; `stuck` = no worthwhile progress for
 * `no_progress_ms`; `disk` = the store takes no more; `aborted` = nobody wants it.
 */
export type AttemptEnd = 'all' | 'dry' | 'stuck' | 'disk' | 'aborted';

export type AttemptWork = {
  readonly claim: Claim;
  readonly staged: StagedBlob;
  readonly roster: Roster;
  readonly claims: ListClaims;
  /** A small blob: two sources are raced. */
  readonly small: boolean;
  /** Whether somebody waits now. */
  readonly waited: () => boolean;
};

/** Fetches the missing pieces of one staged blob against one piece list. Owns its requests; leaves none behind. */
export class Attempt {
  readonly #modules: PullModules;
  readonly #work: AttemptWork;
  readonly #config: PullConfig;
  readonly #pieces: number;
  readonly #flights = new Set<Flight>();
  readonly #jobs = new Set<Promise<void>>();
  /** Sources excluded for `other_list`, to the end of this attempt: no candidates here, but not to blame. */
  readonly #otherList = new Set<string>();
  readonly #asked: Record<Lane, number> = { quick: 0, urgent: 0, front: 0, back: 0 };
  readonly #guard: ProgressGuard;
  readonly #size: RequestSize;
  readonly #waiter: DepthWaiter;
  #cursor = 0;
  #signal = new AbortController().signal;
  #end: AttemptEnd | undefined;
  #wake = new AbortController();
  #found_ms = 0;

  constructor(modules: PullModules, work: AttemptWork, config: PullConfig) {
    this.#modules = modules;
    this.#work = work;
    this.#config = config;
    this.#pieces = pieceCount(work.staged.size_bytes);
    this.#size = work.staged.size_bytes <= PULL_LIMITS.small_bytes ? 'small' : 'large';
    this.#waiter = { urgent: this.#pieces === 1 && work.waited(), onFreed: () => this.kick() };
    this.#guard = new ProgressGuard(work, config, modules.clock.now_ms(), this.#candidates());
  }

  /** Something changed that may let it go on: a waiter came, sources appeared. */
  kick(): void {
    this.#wake.abort('woken'); // a reason of our own: making the default one costs a stack trace each time
  }

  /** Why a source is no candidate for this attempt although the roster excludes it for nothing. */
  excluded(id: string): Extract<ExclusionReason, 'other_list'> | undefined {
    return this.#otherList.has(id) ? 'other_list' : undefined;
  }

  /** Works until there is a reason to end. Returns after the last request is gone; never rejects. */
  async run(signal: AbortSignal): Promise<AttemptEnd> {
    const { clock, gate } = this.#modules;
    this.#signal = signal;
    const onAbort = (): void => this.#finish('aborted');
    const unwait = gate.wait(this.#waiter);
    if (signal.aborted) onAbort();
    else signal.addEventListener('abort', onAbort, { once: true });
    this.#found_ms = clock.now_ms();
    while (this.#end === undefined) {
      this.#wake = new AbortController();
      const due_ms = this.#step();
      // `#step` and what it calls may have ended the attempt.
      if (this.#ended() === undefined) {
        await slept(clock, Math.max(1, due_ms - clock.now_ms()), this.#wake.signal);
      }
    }
    unwait();
    signal.removeEventListener('abort', onAbort);
    for (const flight of this.#flights) flight.abort();
    while (this.#jobs.size > 0) await Promise.all(this.#jobs);
    return this.#end;
  }

  #ended(): AttemptEnd | undefined {
    return this.#end;
  }

  #finish(end: AttemptEnd): void {
    this.#end ??= end;
    this.kick();
  }

  /** Looks at everything once; returns when to look again at the latest. */
  #step(): number {
    const { roster, staged, waited } = this.#work;
    const now = this.#modules.clock.now_ms();
    while (this.#cursor < this.#pieces && staged.has(this.#cursor)) this.#cursor++;
    if (this.#cursor >= this.#pieces) this.#finish('all');
    if (now - this.#found_ms >= PULL_LIMITS.refind_ms) {
      this.#found_ms = now;
      roster.refresh();
    }
    if (this.#guard.isStuck(now, this.#flights, this.#candidates())) this.#stuck();
    if (this.#end !== undefined) return now;
    this.#giveUpStalled(now);
    this.#request();
    const due = this.#flights.size > 0 ? now + PULL_LIMITS.rate_step_ms : Number.POSITIVE_INFINITY;
    const guard = waited() ? this.#guard.due_ms : due;
    // A near source that is busy may be waited for although others could be asked.
    const busy = roster.busy_until_ms(this.#candidates(), this.#size) ?? due;
    return Math.min(due, guard, busy, this.#found_ms + PULL_LIMITS.refind_ms, this.#starved(now));
  }

  /** Ends the attempt when nobody can give anything: at once, or after a while when holders are only busy. Returns when to look again. */
  #starved(now_ms: number): number {
    const never = Number.POSITIVE_INFINITY;
    const asked = Object.values(this.#asked).some((count) => count > 0);
    if (this.#flights.size > 0 || asked || this.#jobs.size > 0) return never;
    const { roster } = this.#work;
    if (this.#candidates().some((m) => roster.usable(m, this.#size))) return never; // its depth is taken by another session
    const busy_ms = roster.busy_until_ms(this.#candidates(), this.#size);
    if (busy_ms === undefined) {
      if (roster.refresh()) return now_ms;
      this.#finish('dry');
      return now_ms;
    }
    const end_ms = this.#guard.starved(now_ms, this.#candidates(), this.#size);
    if (now_ms >= end_ms) this.#finish('dry');
    return Math.min(busy_ms, end_ms);
  }

  /** All the time was not enough for what is stalled: whoever asks next shall not wait as long for the same sources. */
  #stuck(): void {
    for (const { stalled, member, source } of this.#flights) {
      if (stalled !== undefined) this.#work.roster.fault(member, 'too_slow', source);
    }
    this.#finish('stuck');
  }

  /**
   * Stalled requests that are not worth their slot: a silent one with nobody to step in (the registry is faster than waiting), and any when
   * the slots are all taken, for its second try needs one.
   */
  #giveUpStalled(now_ms: number): void {
    const { roster } = this.#work;
    const silent = [...this.#flights].filter((f) => f.isSilent(now_ms));
    for (const flight of this.#flights) {
      if (flight.stalled === undefined) continue;
      // Who is silent on the same piece steps in for nobody.
      const same = silent.filter(({ piece }) => piece === flight.piece).map((f) => f.member);
      const others = this.#candidates().some(
        (m) => m !== flight.member && !same.includes(m) && roster.mayServe(m),
      );
      if (others ? this.#modules.gate.full : silent.includes(flight)) this.#giveUp(flight);
    }
  }

  /** Its piece comes from elsewhere or not at all. A source that stalled comes last by now; a silent one is left alone. */
  #giveUp(flight: Flight): void {
    flight.abort();
    if (flight.stalled === undefined || !this.#work.roster.usable(flight.member)) return;
    const silent_ms = this.#modules.clock.now_ms() - flight.source.standing.heard_ms;
    if (silent_ms < this.#config.first_byte_timeout_ms) return;
    this.#work.roster.fault(flight.member, 'stalled', flight.source);
    this.#log('source stalled', flight, {});
  }

  #candidates(): Member[] {
    return this.#work.roster.members().filter((m) => !this.#otherList.has(m.id));
  }

  /** Asks the gate for as many slots as there is work for. What the work is gets decided when a slot is there. */
  #request(): void {
    const lane = this.#lane();
    const wanted = this.#plan(this.#modules.gate.slots).length;
    for (let more = wanted - this.#asked[lane]; more > 0; more--) {
      this.#asked[lane]++;
      this.#modules.gate.slot(lane, () => {
        this.#asked[lane]--;
        return this.#takeOff();
      });
    }
  }

  #lane(): Lane {
    if (!this.#work.waited()) return 'back';
    if (this.#size === 'small') return 'quick';
    return this.#pieces === 1 ? 'urgent' : 'front';
  }

  async #takeOff(): Promise<void> {
    const next = this.#end === undefined ? this.#plan(1)[0] : undefined;
    const member = next === undefined ? undefined : this.#work.roster.get(next.source);
    if (next === undefined || member === undefined) {
      this.kick();
      return;
    }
    this.#modules.gate.served(this.#waiter);
    const job = this.#fly(next, member).finally(() => {
      this.#jobs.delete(job);
      this.kick();
    });
    this.#jobs.add(job);
    if (this.#work.small) this.kick(); // its rival starts at once, not at the next look
    await job;
  }

  #plan(budget: number): Assignment[] {
    const { waited, small, staged } = this.#work;
    const flying = new Set([...this.#flights].map((f) => f.piece));
    const missing: number[] = [];
    for (let i = this.#cursor; i < this.#pieces && missing.length < PULL_LIMITS.plan_window; i++) {
      if (!staged.has(i) && !flying.has(i)) missing.push(i);
    }
    return plan({
      missing,
      flights: [...this.#flights].map((f) => f.planned()),
      sources: this.#candidates().map((m) => this.#work.roster.planned(m, this.#size)),
      budget,
      order: waited() ? 'prefix' : 'spread',
      piece_bytes: PIECE_BYTES,
      race: small,
      random: this.#modules.random,
    });
  }

  async #fly({ piece, reason }: Assignment, member: Member): Promise<void> {
    const { metrics } = this.#modules;
    const length = pieceLength(this.#work.staged.size_bytes, piece);
    const what = { piece, length, reason, member, size: this.#size };
    const flight = new Flight(this.#modules, what, this.#config);
    this.#flights.add(flight);
    if (reason !== 'missing') metrics.hedges.inc({ reason });
    if (reason === 'endgame' && !this.#work.small) this.#moved(flight);
    let arrived: UnverifiedPiece | undefined;
    try {
      arrived = await flight.fetch({
        onBytes: (n) => this.#guard.received(n),
        onStall: (kind) => this.#stalled(flight, kind),
      });
      const verified = await this.#modules.verifier.verify(arrived, piece, this.#work.claim.list);
      if (verified === undefined) await this.#wrong(flight);
      else if (!flight.aborted) await this.#landed(flight, () => this.#work.staged.write(verified));
    } catch (error) {
      this.#failed(flight, error);
    } finally {
      // Whatever became of it: nobody verifies, hashes or writes it any more.
      arrived?.release?.();
      this.#flights.delete(flight);
    }
  }

  /** What only queues elsewhere is taken back from there, instead of being sent twice. */
  #moved({ piece }: Flight): void {
    for (const other of this.#flights) {
      if (other.piece === piece && other.reason !== 'endgame' && other.meter.received_bytes === 0)
        other.abort();
    }
  }

  async #landed(flight: Flight, write: () => Promise<void>): Promise<void> {
    const { clock, metrics } = this.#modules;
    const { member, piece, length } = flight;
    for (const other of this.#flights) {
      if (other !== flight && other.piece === piece) this.#giveUp(other);
    }
    try {
      await write();
    } catch (error) {
      // The disk is full or the staged copy is gone: no source can mend that.
      const { digest } = this.#work.staged;
      this.#modules.logger.warn({ digest, err: error }, 'piece cannot be written');
      this.#finish('disk');
      return;
    }
    this.#guard.landed();
    this.#work.roster.delivered(member, length);
    const ms = clock.now_ms() - flight.meter.started_ms;
    metrics.bytes.inc({ source: member.kind }, length);
    metrics.pieces.inc({ result: 'ok' });
    metrics.piece_seconds.observe({}, ms / 1000);
    this.#log('piece fetched', flight, { bytes: length, ms });
  }

  #failed(flight: Flight, error: unknown): void {
    const { metrics } = this.#modules;
    if (flight.aborted) {
      metrics.pieces.inc({ result: 'late' });
      return;
    }
    metrics.pieces.inc({ result: 'failed' });
    const fault = this.#work.roster.failed(flight.member, error, flight.source, this.#size);
    if (fault === 'busy') this.#work.roster.refresh(); // it may be connected otherwise by now
    this.#log('piece failed', flight, { fault });
  }

  /** Everything a stalling source still owes is asked for elsewhere, and it is demoted. */
  #stalled(flight: Flight, kind: StallKind): void {
    this.#modules.metrics.stalls.inc({ kind });
    flight.source.standing.stalling();
    for (const f of this.#flights) if (f.member === flight.member) f.stalled ??= kind;
    this.#log('piece stalled', flight, { kind });
    this.kick();
  }

  /** Only a sender who claims this very list, and sends the piece wrong again, is guilty of it. */
  async #wrong(flight: Flight): Promise<void> {
    const { member, source } = flight;
    const { claims, claim, roster } = this.#work;
    this.#modules.metrics.pieces.inc({ result: 'wrong' });
    this.#otherList.add(member.id);
    this.#flights.delete(flight);
    if (member.kind === 'peer' && claims.vouches(member.id, claim) === 'unknown') {
      await claims.ask(member, this.#signal);
    }
    const suspect = member.kind === 'peer' && claims.vouches(member.id, claim) === 'same';
    if (!suspect) {
      this.#log('piece is wrong', flight, {});
      return;
    }
    const asked = { source, piece: flight.piece, length: flight.length, list: claim.list };
    const opinion = await secondOpinion(this.#modules, asked, this.#signal);
    if (opinion === 'right') this.#otherList.delete(member.id);
    else if (opinion !== 'unasked') roster.fault(member, opinion, source);
    this.#log('piece is wrong', flight, { opinion });
  }

  #log(message: string, flight: Flight, facts: object): void {
    const { digest } = this.#work.staged;
    const { piece, member, reason } = flight;
    this.#modules.logger.debug({ digest, piece, peer: member.id, reason, ...facts }, message);
  }
}
