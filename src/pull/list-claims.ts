import { createHash } from 'node:crypto';
import type { Clock } from '../base/clock.ts';
import { DaemonError } from '../base/errors.ts';
import { algorithmOf, type Digest, hexOf } from '../oci/digest.ts';
import { pieceCount } from '../piece/layout.ts';
import { isWellFormed, type PieceList } from '../piece/piece-list.ts';
import type { PieceSource } from '../piece/source.ts';
import { slept, withinSilence } from './deadline.ts';
import { PULL_LIMITS, type PullConfig } from './pull-config.ts';
import type { Member, Roster } from './roster.ts';
import { difference } from './working-copy.ts';

type ListConfig = Pick<PullConfig, 'first_byte_timeout_ms' | 'busy_wait_ms' | 'no_progress_ms'>;

/** One version of the piece list, and who says so. */
export type Claim = {
  readonly list: PieceList;
  /** By source id. Empty for the list that is the digest itself: nobody had to claim it. */
  readonly authors: Map<string, PieceSource>;
  /** True once it is known or feared to be wrong: never chosen again in this session. */
  rejected: boolean;
};

/**
 * What the holders of one session claim to be its piece list, and who is behind each claim. A blob of one piece needs none, for its sha256 digest is the
 * list. Every source is taken at its own word: only who claims the very same list can be guilty of a piece that fails it.
 */
export class ListClaims {
  readonly #clock: Clock;
  readonly #roster: Roster;
  readonly #target: { readonly digest: Digest; readonly size_bytes: number };
  readonly #config: ListConfig;
  readonly #claims = new Map<string, Claim>();
  readonly #said = new Map<string, Claim>();
  readonly #asking = new Map<string, Promise<void>>();
  readonly #self_evident: Claim | undefined;

  constructor(
    modules: { clock: Clock; roster: Roster },
    target: { readonly digest: Digest; readonly size_bytes: number },
    config: ListConfig,
  ) {
    this.#clock = modules.clock;
    this.#roster = modules.roster;
    this.#target = target;
    this.#config = config;
    if (pieceCount(target.size_bytes) <= 1 && algorithmOf(target.digest) === 'sha256') {
      const digests = Buffer.from(hexOf(target.digest), 'hex');
      const list = { ...target, digests };
      this.#self_evident = { list, authors: new Map(), rejected: false };
    }
  }

  /** The claim to work with: most authors first, then the earliest. */
  best(): Claim | undefined {
    if (this.#self_evident !== undefined) {
      return this.#self_evident.rejected ? undefined : this.#self_evident;
    }
    let best: Claim | undefined;
    for (const claim of this.#claims.values()) {
      if (claim.rejected) continue;
      if (best === undefined || claim.authors.size > best.authors.size) best = claim;
    }
    return best;
  }

  /** Whether the source claims this very list. */
  vouches(id: string, claim: Claim): 'same' | 'other' | 'unknown' {
    if (claim === this.#self_evident) return 'same';
    const said = this.#said.get(id);
    if (said === undefined) return 'unknown';
    return said === claim ? 'same' : 'other';
  }

  /** The whole blob disagreed although every piece matched: its authors lied. */
  refute(claim: Claim): void {
    claim.rejected = true;
    for (const [id, source] of claim.authors) {
      const member = this.#roster.get(id);
      if (member === undefined) source.blame('wrong_list');
      else this.#roster.fault(member, 'wrong_list', source);
    }
    // They have paid; who claims it from here on has not.
    claim.authors.clear();
  }

  /** The whole blob agreed, so this list is the true one and everybody who claimed another lied. */
  confirm(claim: Claim): void {
    for (const other of this.#claims.values()) if (other !== claim) this.refute(other);
  }

  /**
   * Asks holders, three at a time and further ones when those are slow, until a claim is there and the others of the round had
   * a moment to disagree. `undefined` when nobody has one to give. Nobody is asked any more after `busy_wait_ms` and a little;
   * answers under way are waited for while bytes flow from their holders, `no_progress_ms` at the longest.
   */
  async gather(signal: AbortSignal): Promise<Claim | undefined> {
    const begun_ms = this.#clock.now_ms();
    let deadline_ms = begun_ms + this.#config.busy_wait_ms + this.#config.first_byte_timeout_ms;
    while (!signal.aborted) {
      const best = this.best();
      if (best !== undefined) return best;
      const isLate = this.#clock.now_ms() >= deadline_ms;
      if (isLate && this.#asking.size === 0) return undefined;
      const next = isLate ? [] : this.#askable().slice(0, PULL_LIMITS.list_askers);
      for (const member of next) void this.ask(member, signal);
      if (this.#asking.size > 0) {
        await this.#round(signal);
      } else if (!this.#roster.refresh()) {
        const busy_ms = this.#roster.busy_until_ms(this.#roster.members(), 'small');
        if (busy_ms === undefined) return undefined;
        if (this.#roster.members().some((m) => this.#roster.keepsWord(m, 'small'))) {
          deadline_ms = Math.max(deadline_ms, begun_ms + this.#config.no_progress_ms);
        }
        await slept(this.#clock, Math.max(1, busy_ms - this.#clock.now_ms()), signal);
      }
    }
    return this.best();
  }

  /** Asks further holders for their lists, for a moment, when a claim has one author only. */
  async corroborate(claim: Claim, signal: AbortSignal): Promise<void> {
    if (claim.authors.size !== 1 || signal.aborted) return;
    const next = this.#askable().slice(0, PULL_LIMITS.list_askers);
    const asked = Promise.all(next.map((member) => this.ask(member, signal)));
    const end = new AbortController();
    const both = AbortSignal.any([signal, end.signal]);
    await Promise.race([asked, slept(this.#clock, PULL_LIMITS.list_round_ms, both)]);
    end.abort();
  }

  /** The first piece of a claim with one author that another holder's list contradicts. Two authors are believed; so is one alone. */
  firstDisputed(claim: Claim): number | undefined {
    if (claim.authors.size !== 1) return undefined;
    const first = [...this.#claims.values()]
      .filter((other) => other !== claim && !other.rejected && other.authors.size > 0)
      .map((other) => difference(claim.list, other.list).next().value)
      .filter((index) => index !== undefined);
    return first.length === 0 ? undefined : Math.min(...first);
  }

  /** Asks one source for its list, once; never rejects. */
  ask(member: Member, signal: AbortSignal): Promise<void> {
    const asking = this.#asking.get(member.id);
    if (asking !== undefined) return asking;
    const job = this.#ask(member, signal).finally(() => this.#asking.delete(member.id));
    this.#asking.set(member.id, job);
    return job;
  }

  #askable(): Member[] {
    return this.#roster
      .members()
      .filter(
        (m) =>
          m.kind === 'peer' &&
          this.#roster.usable(m, 'small') &&
          !this.#said.has(m.id) &&
          !this.#asking.has(m.id),
      );
  }

  async #round(signal: AbortSignal): Promise<void> {
    const end = new AbortController();
    const both = AbortSignal.any([signal, end.signal]);
    const all = [...this.#asking.values()];
    const pause = slept(this.#clock, PULL_LIMITS.list_round_ms, both);
    const first = all.map((job) => job.then(() => (this.best() === undefined ? pause : undefined)));
    const everyone = Promise.all(all);
    await Promise.race([...first, everyone, pause]);
    if (this.best() !== undefined) {
      await Promise.race([everyone, slept(this.#clock, PULL_LIMITS.list_grace_ms, both)]);
    }
    end.abort();
  }

  async #ask(member: Member, signal: AbortSignal): Promise<void> {
    const { source } = member;
    const max_pieces = pieceCount(this.#target.size_bytes);
    try {
      const list = await withinSilence(this.#clock, this.#patience(source), signal, (s) =>
        source.list({ max_pieces, signal: s }),
      );
      this.#check(list);
      this.#add(member.id, source, list);
    } catch (error) {
      // Our own end says nothing about the source; every other failure takes it out and lets the next be asked.
      if (!signal.aborted) this.#roster.failed(member, error, source, 'small');
    }
  }

  /** A list may have to wait behind what its holder sends otherwise. */
  #patience({ standing }: PieceSource): Parameters<typeof withinSilence>[1] {
    const { first_byte_timeout_ms, no_progress_ms } = this.#config;
    return {
      silent_ms: first_byte_timeout_ms,
      longest_ms: Math.max(first_byte_timeout_ms, no_progress_ms),
      heard_ms: () => standing.heard_ms,
    };
  }

  #check(list: PieceList): void {
    const { digest, size_bytes } = this.#target;
    if (list.digest === digest && list.size_bytes === size_bytes && isWellFormed(list)) return;
    throw new DaemonError('protocol_error', 'the piece list is not one of the blob asked for');
  }

  #add(id: string, source: PieceSource, list: PieceList): void {
    const key = createHash('sha256').update(list.digests).digest('hex');
    let claim = this.#claims.get(key);
    if (claim === undefined) {
      claim = { list, authors: new Map(), rejected: false };
      this.#claims.set(key, claim);
    }
    claim.authors.set(id, source);
    this.#said.set(id, claim);
    // A list that was refuted before this author came forward stays a lie.
    const member = this.#roster.get(id);
    if (claim.rejected && member !== undefined) member.repeats_lie = true;
  }
}
