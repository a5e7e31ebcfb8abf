import { DaemonError } from '../base/errors.ts';
import type { Digest } from '../oci/digest.ts';
import type { Demotion, ExclusionReason } from '../piece/exclusion.ts';
import { pieceCount } from '../piece/layout.ts';
import type { PieceSource } from '../piece/source.ts';
import type { StagedBlob } from '../store/blob-store.ts';
import { Attempt, type AttemptEnd } from './attempt.ts';
import { slept } from './deadline.ts';
import type { SessionResult } from './metrics.ts';
import { NothingStaged } from './nothing-staged.ts';
import { type Claim, ListClaims } from './list-claims.ts';
import { PULL_LIMITS, type PullConfig } from './pull-config.ts';
import type { PullModules } from './pull-modules.ts';
import type { PullOutcome } from './pull-port.ts';
import { restored } from './restored-blob.ts';
import { Roster } from './roster.ts';
import { Ticket, type TicketOwner } from './ticket.ts';
import type { Vouched } from './handed-prefixes.ts';
import { type Published, WorkingCopy } from './working-copy.ts';

export type PullTarget = { readonly digest: Digest; readonly size_bytes: number };

/** One session as `status` shows it. */
export type PullStatus = {
  readonly digest: Digest;
  readonly size_bytes: number;
  /** Contiguous bytes that are here. */
  readonly progress_bytes: number;
  readonly state: 'fetching' | SessionResult;
  readonly waiters: number;
  /** Milliseconds since the session began. */
  readonly age_ms: number;
  readonly sources: readonly {
    readonly id: string;
    readonly kind: PieceSource['kind'];
    readonly bytes: number;
    readonly excluded: ExclusionReason | undefined;
    readonly demoted: Demotion | undefined;
  }[];
};

type SessionHooks = {
  /** The session is over and its staged copy gone. */
  readonly onGone: () => void;
  /** A prefix is handed out on the word of these. */
  readonly onPrefix: (vouched: Vouched) => void;
  /** Whether a prefix of this blob turned out wrong lately. */
  readonly doubted: () => boolean;
};

/**
 * One blob on its way. Tries the best piece list, goes on with another when that one was a lie, and settles with the whole
 * blob or with the contiguous prefix. Lives on for `linger_ms` without waiters; the last ticket to go takes the staged copy along.
 */
export class Session implements TicketOwner {
  readonly target: PullTarget;
  readonly #modules: PullModules;
  readonly #config: PullConfig;
  readonly #hooks: SessionHooks;
  readonly #roster: Roster;
  readonly #claims: ListClaims;
  readonly #tickets = new Set<Ticket>();
  readonly #stop = new AbortController();
  readonly #started_ms: number;
  #ended = Promise.withResolvers<undefined>();
  #linger = new AbortController();
  #result: SessionResult | undefined;
  #run: Promise<void> = Promise.resolve();
  #attempt: Attempt | undefined;
  #claim: Claim | undefined;
  readonly #copy: WorkingCopy;
  #shown_bytes = 0;
  #small = false;
  #taken = false;
  #closing = false;

  constructor(modules: PullModules, target: PullTarget, config: PullConfig, hooks: SessionHooks) {
    this.target = target;
    this.#modules = modules;
    this.#config = config;
    this.#hooks = hooks;
    this.#roster = new Roster(modules, target);
    this.#claims = new ListClaims({ clock: modules.clock, roster: this.#roster }, target, config);
    this.#copy = new WorkingCopy(modules, target);
    this.#started_ms = modules.clock.now_ms();
    this.#roster.refresh();
  }

  get waited(): boolean {
    for (const ticket of this.#tickets) if (!ticket.expired) return true;
    return false;
  }

  /** True when nobody holds it and its work is done: it may go to make room. */
  get evictable(): boolean {
    return this.#result !== undefined && this.#tickets.size === 0;
  }

  /** Starts the work; call it once. */
  start(options: { readonly small: boolean }): void {
    this.#small = options.small;
    this.#run = this.#work();
  }

  /** A ticket, or `undefined` when the outcome is given away to a sole waiter or the session is ending. */
  open(options: { readonly small: boolean }): Ticket | undefined {
    if (this.#closing) return undefined;
    if (this.#taken && (this.#tickets.size > 0 || this.#copy.staged?.holds_pieces !== true)) {
      return undefined;
    }
    this.#taken = false;
    this.#linger.abort();
    if (this.#result !== undefined && this.#tickets.size === 0) this.#reopen();
    const ticket = new Ticket(this);
    this.#tickets.add(ticket);
    if (options.small) void this.#expireLater(ticket);
    this.#attempt?.kick();
    return ticket;
  }

  /** The finder may know more by now. */
  sourcesChanged(): void {
    this.#roster.refresh();
    this.#attempt?.kick();
  }

  status(): PullStatus {
    return {
      ...this.target,
      progress_bytes: this.progress_bytes(),
      state: this.#result ?? 'fetching',
      waiters: this.#tickets.size,
      age_ms: this.#modules.clock.now_ms() - this.#started_ms,
      sources: this.#roster.members().map((m) => ({
        id: m.id,
        kind: m.kind,
        bytes: m.bytes,
        excluded: this.#roster.excluded(m)?.reason ?? this.#attempt?.excluded(m.id),
        demoted: this.#roster.demoted(m),
      })),
    };
  }

  /** Ends it now, whoever waits: they get the prefix 0. Resolves when nothing of it is left running and its staged copy is gone. */
  async close(): Promise<void> {
    this.#closing = true;
    this.#linger.abort();
    this.#stop.abort(new DaemonError('cancelled', 'the pull session was ended'));
    await this.#run;
    await this.#copy.dispose();
    this.#hooks.onGone();
  }

  // --- what tickets see

  /** Never shrinks, although a new list may set the work back: containerd takes a shrinking offset for no progress. */
  progress_bytes(): number {
    const here =
      this.#result === 'complete' ? this.target.size_bytes : this.#copy.staged?.prefix_bytes;
    this.#shown_bytes = Math.max(this.#shown_bytes, here ?? 0);
    return this.#shown_bytes;
  }

  ended(): Promise<undefined> {
    return this.#ended.promise;
  }

  outcome(): PullOutcome {
    if (this.#result === 'complete') return { kind: 'complete' };
    const { staged } = this.#copy;
    if (this.#result !== 'prefix' || staged === undefined) return this.nothing();
    const sole = this.#tickets.size === 1;
    this.#taken ||= sole;
    return { kind: 'prefix', staged, sole };
  }

  nothing(): PullOutcome {
    const staged = new NothingStaged(this.target.digest, this.target.size_bytes);
    return { kind: 'prefix', staged, sole: true };
  }

  release(ticket: Ticket): void {
    this.#tickets.delete(ticket);
    if (this.#tickets.size > 0 || this.#closing) return;
    // Pieces behind a prefix that was given away are worth a retry's while.
    if (this.#result === undefined || (this.#taken && this.#copy.staged?.holds_pieces === true)) {
      void this.#lingerOn();
    } else void this.close();
  }

  // --- life

  async #expireLater(ticket: Ticket): Promise<void> {
    const { clock } = this.#modules;
    const end = new AbortController();
    void this.ended().then(() => end.abort());
    if (!(await slept(clock, this.#config.small_wait_ms, end.signal))) return;
    ticket.expire();
    // Nobody is left who could still profit: the registry is being asked by now.
    if (!this.waited && !this.#closing) void this.close();
  }

  async #lingerOn(): Promise<void> {
    this.#linger.abort();
    this.#linger = new AbortController();
    const over = await slept(this.#modules.clock, this.#config.linger_ms, this.#linger.signal);
    if (over && this.#tickets.size === 0 && !this.#closing) await this.close();
  }

  /** A retried pull continues a settled prefix when somebody can still give more. */
  #reopen(): void {
    this.#roster.refresh();
    const more = this.#roster.members().some((m) => this.#roster.usable(m));
    if (this.#result !== 'prefix' || !more) return;
    this.#result = undefined;
    this.#ended = Promise.withResolvers<undefined>();
    this.#run = this.#work();
  }

  async #work(): Promise<void> {
    let result: SessionResult;
    try {
      result = await this.#pull();
    } catch (error) {
      // Sources cannot fail a session and the store's failures are outcomes, so this is ours; containerd must not suffer from it.
      this.#modules.logger.error({ digest: this.target.digest, err: error }, 'pull session failed');
      result = 'nothing';
    }
    if (result === 'prefix' && !this.#worthKeeping()) result = 'nothing';
    if (result !== 'complete' && this.#stop.signal.aborted) result = 'aborted';
    if (result === 'prefix') this.#vouch();
    else await this.#copy.dispose();
    this.#result = result;
    this.#report(result);
    this.#ended.resolve(undefined);
    if (this.#tickets.size > 0 || this.#closing) return;
    if (result === 'prefix') void this.#lingerOn();
    else void this.close();
  }

  /** A prefix; or, when nobody waits yet, pieces that a later join can go on from. */
  #worthKeeping(): boolean {
    const { staged } = this.#copy;
    if (staged === undefined || staged.prefix_bytes > 0) return staged !== undefined;
    return this.#tickets.size === 0 && this.#roster.members().some((m) => m.bytes > 0);
  }

  async #pull(): Promise<SessionResult> {
    const { signal } = this.#stop;
    if (await restored(this.#modules, this.target)) return 'complete';
    for (let tries = 0; tries <= PULL_LIMITS.restarts_max; tries++) {
      this.#claim ??= await this.#claims.gather(signal);
      const staged = this.#claim && (await this.#copy.under(this.#claim.list));
      if (this.#claim === undefined || staged === undefined || signal.aborted) break;
      const end = await this.#attemptWith(this.#claim, staged);
      if (end === 'all') {
        const published = await this.#publish(this.#claim);
        if (published === 'damaged') continue;
        if (published !== 'refuted') return published;
      } else if (!this.#otherListMayDo(end, this.#claim)) {
        return this.#prefix(this.#claim);
      }
      this.#claim = undefined;
    }
    // Nothing can be staged either when containerd's own write of it was faster.
    const here = this.#modules.store.info(this.target.digest);
    return here?.size_bytes === this.target.size_bytes ? 'complete' : 'nothing';
  }

  async #attemptWith(claim: Claim, staged: StagedBlob): Promise<AttemptEnd> {
    const work = {
      claim,
      staged,
      roster: this.#roster,
      claims: this.#claims,
      small: this.#small && pieceCount(this.target.size_bytes) === 1,
      waited: () => this.waited,
    };
    this.#attempt = new Attempt(this.#modules, work, this.#config);
    try {
      return await this.#attempt.run(this.#stop.signal);
    } finally {
      this.#attempt = undefined;
    }
  }

  async #publish(claim: Claim): Promise<Published> {
    const published = await this.#copy.publish();
    if (published === 'complete') this.#claims.confirm(claim);
    if (published !== 'refuted') return published;
    const { digest } = this.target;
    this.#modules.logger.warn(
      { digest, authors: claim.authors.size },
      'all pieces matched a piece list that is wrong',
    );
    this.#claims.refute(claim);
    return 'refuted';
  }

  /** A prefix is a promise: it ends where another holder contradicts the only author of its list, and a blob in doubt gives none. */
  async #prefix(claim: Claim): Promise<'prefix' | 'nothing'> {
    if (this.#hooks.doubted()) return 'nothing';
    if (this.#copy.staged?.prefix_bytes === 0) return 'prefix';
    await this.#claims.corroborate(claim, this.#stop.signal);
    const disputed = this.#claims.firstDisputed(claim);
    if (disputed !== undefined) await this.#copy.cut(disputed);
    return 'prefix';
  }

  #vouch(): void {
    if (this.#claim === undefined) return;
    const { list, authors } = this.#claim;
    this.#hooks.onPrefix({ list, authors: [...authors.values()] });
  }

  /** Ran dry although another list is there whose holders can still be asked: the other one may be the true one. */
  #otherListMayDo(end: AttemptEnd, claim: Claim): boolean {
    if (end !== 'dry') return false;
    claim.rejected = true;
    const other = this.#claims.best();
    const askable = this.#roster.members().some((m) => {
      if (!this.#roster.usable(m)) return false;
      return other !== undefined && this.#claims.vouches(m.id, other) === 'same';
    });
    if (!askable) claim.rejected = false;
    return askable;
  }

  #report(outcome: SessionResult): void {
    const { metrics, logger, clock } = this.#modules;
    const seconds = (clock.now_ms() - this.#started_ms) / 1000;
    metrics.sessions.inc({ outcome });
    metrics.session_seconds.observe({ outcome }, seconds);
    const givers = this.#roster.members().filter((m) => m.bytes > 0);
    const bytes = givers.reduce((sum, m) => sum + m.bytes, 0);
    const facts = { ...this.target, outcome, seconds, bytes, sources: givers.length };
    logger.info({ ...facts, prefix_bytes: this.progress_bytes() }, 'pull session finished');
  }
}
