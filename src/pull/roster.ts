import type { Clock } from '../base/clock.ts';
import { hasCode } from '../base/errors.ts';
import type { Digest } from '../oci/digest.ts';
import { type Demotion, type Exclusion, isVerdict, type SourceFault } from '../piece/exclusion.ts';
import type { FaultFacts, PieceSource, SourceFinder } from '../piece/source.ts';
import type { RequestSize } from '../piece/standing.ts';
import type { PlanSource } from './planner.ts';
import { PULL_LIMITS } from './pull-config.ts';

/** A source within one session. What is known of the host behind it stands in `source.standing`; here is what concerns this blob only. */
export type Member = {
  readonly id: string;
  readonly kind: PieceSource['kind'];
  source: PieceSource;
  /** It repeats a list that was refuted before it spoke. */
  repeats_lie: boolean;
  /** Why it is of no use for this blob any more. */
  out: SourceFault | undefined;
  /** Failures in a row without a piece. */
  faults: number;
  /** Verified bytes taken from it. */
  bytes: number;
};

/** The sources of one session and why some of them are out: for this blob, or because of the standing of the host behind them. */
export class Roster {
  readonly #finder: SourceFinder;
  readonly #clock: Clock;
  readonly #target: { readonly digest: Digest; readonly size_bytes: number };
  readonly #members = new Map<string, Member>();

  constructor(
    modules: { finder: SourceFinder; clock: Clock },
    target: { readonly digest: Digest; readonly size_bytes: number },
  ) {
    this.#finder = modules.finder;
    this.#clock = modules.clock;
    this.#target = target;
  }

  /** Memory. Takes in what the finder knows now; true when somebody is new. */
  refresh(): boolean {
    let grown = false;
    for (const source of this.#finder.find(this.#target.digest, this.#target.size_bytes)) {
      const known = this.#members.get(source.id);
      if (known !== undefined) {
        known.source = source; // it may stand for a newer connection
      } else if (this.#members.size < PULL_LIMITS.sources_max) {
        this.#members.set(source.id, newMember(source));
        grown = true;
      }
    }
    return grown;
  }

  members(): readonly Member[] {
    return [...this.#members.values()];
  }

  get(id: string): Member | undefined {
    return this.#members.get(id);
  }

  /** The exclusion in force, for a request of that size. */
  excluded({ out, source }: Member, size?: RequestSize): Exclusion | undefined {
    if (out !== undefined) return { reason: out, until_ms: Number.POSITIVE_INFINITY };
    return source.standing.excluded(size);
  }

  /** Why it comes last. */
  demoted({ repeats_lie, source }: Member): Demotion | undefined {
    return repeats_lie ? 'wrong_list' : source.standing.demoted();
  }

  usable(member: Member, size?: RequestSize): boolean {
    return this.excluded(member, size) === undefined;
  }

  /** It may be asked now, or when it is no longer busy. */
  mayServe(member: Member): boolean {
    const excluded = this.excluded(member);
    return excluded === undefined || excluded.reason === 'busy';
  }

  /** When the first of the busy members may be asked again; undefined when none is busy. */
  busy_until_ms(members: readonly Member[], size?: RequestSize): number | undefined {
    const ends = members
      .map((m) => this.excluded(m, size))
      .filter((e) => e?.reason === 'busy')
      .map((e) => e!.until_ms);
    return ends.length === 0 ? undefined : Math.min(...ends);
  }

  /** True while it is busy until a time that it has named, and not busy again and again when that comes. */
  keepsWord(member: Member, size?: RequestSize): boolean {
    const isPromised = this.excluded(member, size)?.promised === true;
    return isPromised && member.source.standing.busy_streak <= PULL_LIMITS.busy_streak_max;
  }

  /** Tells the owner of the source; takes the member out of this session when that is for good. */
  fault(
    member: Member,
    fault: SourceFault,
    source: PieceSource = member.source,
    facts?: FaultFacts,
  ): void {
    // Several requests that fail together are one failure.
    if ((fault === 'stalled' || fault === 'gone') && this.usable(member)) member.faults++;
    const isFinal = isVerdict(fault) || fault === 'no_content';
    if (isFinal || member.faults >= PULL_LIMITS.faults_max) member.out ??= fault;
    source.blame(fault, facts);
  }

  /** The fault behind a failed call of a source, as `PieceSource` words it. */
  failed(member: Member, error: unknown, source: PieceSource, size: RequestSize): SourceFault {
    const fault = faultOf(error);
    this.fault(member, fault, source, { size, retry_after_ms: retryAfter_ms(error) });
    return fault;
  }

  /** A verified piece came from it. */
  delivered(member: Member, bytes: number): void {
    member.bytes += bytes;
    member.faults = 0;
    member.repeats_lie = false;
    member.source.standing.delivered();
  }

  /** A member as the planner sees it. Small pieces do not queue behind large ones. */
  planned(member: Member, size: RequestSize): PlanSource {
    const { near, depth, standing } = member.source;
    return {
      id: member.id,
      near,
      // Who was busy is asked for one piece at first.
      depth: size === 'large' && standing.busy_streak > 0 ? 1 : Math.max(1, depth),
      in_flight: size === 'small' ? 0 : standing.in_flight,
      rate: standing.rate,
      first_byte_ms: standing.first_byte_ms,
      state: this.#state(member, size),
      demoted: this.demoted(member) !== undefined,
    };
  }

  #state(member: Member, size: RequestSize): PlanSource['state'] {
    const excluded = this.excluded(member, size);
    if (excluded === undefined) return 'usable';
    if (excluded.reason !== 'busy') return 'out';
    const left_ms = excluded.until_ms - this.#clock.now_ms();
    const isNew = member.source.standing.busy_streak <= PULL_LIMITS.near_busy_max;
    return isNew && left_ms <= PULL_LIMITS.near_busy_ms ? 'soon' : 'out';
  }
}

function newMember(source: PieceSource): Member {
  const { id, kind } = source;
  return { id, kind, source, repeats_lie: false, out: undefined, faults: 0, bytes: 0 };
}

/** The fault behind a failed call of a source, as `PieceSource` words it. */
export function faultOf(error: unknown): SourceFault {
  if (hasCode(error, 'unavailable')) return 'busy';
  if (hasCode(error, 'not_found')) return 'no_content';
  if (hasCode(error, 'protocol_error')) return 'protocol';
  if (hasCode(error, 'deadline_exceeded')) return 'stalled';
  return 'gone';
}

/** When a busy source said that it is to be asked again. */
function retryAfter_ms(error: unknown): number | undefined {
  const said = hasCode(error, 'unavailable') ? error.facts['retry_after_ms'] : undefined;
  return typeof said === 'number' && said >= 0 ? said : undefined;
}
