import type { Clock } from '../base/clock.ts';
import { hasCode } from '../base/errors.ts';
import type { Digest } from '../oci/digest.ts';
import {
  type Demotion,
  type Exclusion,
  type ExclusionReason,
  isVerdict,
  type SourceFault,
} from '../piece/exclusion.ts';
import type { PieceSource, SourceFinder } from '../piece/source.ts';
import type { PlanSource } from './planner.ts';
import { PULL_LIMITS } from './pull-config.ts';
import type { SourceLoads } from './source-loads.ts';

/** A source within one session. */
export type Member = {
  readonly id: string;
  readonly kind: PieceSource['kind'];
  source: PieceSource;
  /** Set by whoever sees the reason; a good piece ends it. */
  demoted: Demotion | undefined;
  /** The last one, in force or not; read it through `excluded` and `usable`. */
  exclusion: Exclusion | undefined;
  faults: number;
  busy_count: number;
  /** Verified bytes taken from it. */
  bytes: number;
};

/** The sources of one session and why some of them are out. Every exclusion has a reason and, but for lies, an end. */
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

  /** The exclusion in force. */
  excluded(member: Member): Exclusion | undefined {
    const { exclusion } = member;
    return exclusion !== undefined && exclusion.until_ms > this.#clock.now_ms()
      ? exclusion
      : undefined;
  }

  usable(member: Member): boolean {
    return this.excluded(member) === undefined;
  }

  /** When the first of the busy members may be asked again; undefined when none is busy. */
  busy_until_ms(members: readonly Member[] = this.members()): number | undefined {
    const ends = members
      .map((m) => this.excluded(m))
      .filter((e) => e?.reason === 'busy')
      .map((e) => e!.until_ms);
    return ends.length === 0 ? undefined : Math.min(...ends);
  }

  /** Excludes the member and tells the owner of its source. */
  fault(member: Member, fault: SourceFault, source: PieceSource = member.source): void {
    if (member.exclusion === undefined || !isFinal(member.exclusion.reason)) {
      const pause_ms = this.#pause_ms(member, fault);
      member.exclusion = { reason: fault, until_ms: this.#clock.now_ms() + pause_ms };
    }
    source.blame(fault);
  }

  /** Infinity = for good. */
  #pause_ms(member: Member, fault: SourceFault): number {
    if (fault === 'busy') {
      const pause_ms = PULL_LIMITS.busy_backoff_ms * 2 ** Math.min(member.busy_count++, 8);
      return Math.min(pause_ms, PULL_LIMITS.busy_backoff_max_ms);
    }
    const isOut = isFinal(fault) || ++member.faults >= PULL_LIMITS.faults_max;
    return isOut ? Number.POSITIVE_INFINITY : PULL_LIMITS.readmit_ms;
  }

  /** The fault behind a failed call of a source, as `PieceSource` words it. */
  failed(member: Member, error: unknown, source: PieceSource): SourceFault {
    const fault = faultOf(error);
    this.fault(member, fault, source);
    return fault;
  }

  /** A verified piece came from it. */
  delivered(member: Member, bytes: number): void {
    member.bytes += bytes;
    member.busy_count = 0;
    member.demoted = undefined;
  }
}

/** Reasons that keep a source out of this session for good. */
function isFinal(reason: ExclusionReason): boolean {
  return isVerdict(reason) || reason === 'no_content';
}

/** A member as the planner sees it, with what all sessions together ask of it. */
export function planSource(m: Member, loads: SourceLoads, roster: Roster): PlanSource {
  const { near, depth } = m.source;
  return {
    id: m.id,
    near,
    depth: Math.max(1, depth),
    in_flight: loads.in_flight(m.id),
    rate: loads.rate(m.id),
    usable: roster.usable(m),
    demoted: m.demoted !== undefined,
  };
}

function newMember(source: PieceSource): Member {
  return {
    id: source.id,
    kind: source.kind,
    source,
    demoted: undefined,
    exclusion: undefined,
    faults: 0,
    busy_count: 0,
    bytes: 0,
  };
}

/** The fault behind a failed call of a source, as `PieceSource` words it. */
export function faultOf(error: unknown): SourceFault {
  if (hasCode(error, 'unavailable')) return 'busy';
  if (hasCode(error, 'not_found')) return 'no_content';
  if (hasCode(error, 'protocol_error')) return 'protocol';
  if (hasCode(error, 'deadline_exceeded')) return 'stalled';
  return 'gone';
}
