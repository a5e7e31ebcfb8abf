import type { Clock } from '../base/clock.ts';
import { hasCode } from '../base/errors.ts';
import type { Digest } from '../oci/digest.ts';
import type { PieceSource, SourceFault, SourceFinder } from '../piece/source.ts';
import { PULL_LIMITS } from './pull-config.ts';

/** A source within one session. */
export type Member = {
  readonly id: string;
  readonly kind: PieceSource['kind'];
  source: PieceSource;
  /** Stalled lately: used only when nothing better is left. */
  slow: boolean;
  /** Why it is not asked now; read it through `usable` and `excludedFor`. */
  excluded: SourceFault | undefined;
  until_ms: number;
  faults: number;
  busy_count: number;
  /** Verified bytes taken from it. */
  bytes: number;
};

/** Faults after which a source is out of this session for good. */
const FINAL: ReadonlySet<SourceFault> = new Set([
  'wrong_piece',
  'wrong_list',
  'no_content',
  'protocol',
]);

/** The sources of one session and why some of them are out. Every exclusion has a name and, but for lies, an end. */
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

  usable(member: Member): boolean {
    return member.until_ms <= this.#clock.now_ms();
  }

  /** The name of the exclusion in force. */
  excludedFor(member: Member): SourceFault | undefined {
    return this.usable(member) ? undefined : member.excluded;
  }

  /** When the first of the busy members may be asked again; undefined when none is busy. */
  busy_until_ms(members: readonly Member[] = this.members()): number | undefined {
    const busy = members.filter((m) => m.excluded === 'busy' && !this.usable(m));
    return busy.length === 0 ? undefined : Math.min(...busy.map((m) => m.until_ms));
  }

  /** Excludes the member and tells the owner of its source. */
  fault(member: Member, fault: SourceFault, source: PieceSource = member.source): void {
    const now = this.#clock.now_ms();
    if (!FINAL.has(member.excluded ?? 'busy')) {
      member.excluded = fault;
      if (fault === 'busy') {
        const pause = PULL_LIMITS.busy_backoff_ms * 2 ** Math.min(member.busy_count++, 8);
        member.until_ms = now + Math.min(pause, PULL_LIMITS.busy_backoff_max_ms);
      } else {
        const out = FINAL.has(fault) || ++member.faults >= PULL_LIMITS.faults_max;
        member.until_ms = out ? Number.POSITIVE_INFINITY : now + PULL_LIMITS.readmit_ms;
      }
    }
    source.blame(fault);
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
    member.slow = false;
  }
}

function newMember(source: PieceSource): Member {
  return {
    id: source.id,
    kind: source.kind,
    source,
    slow: false,
    excluded: undefined,
    until_ms: Number.NEGATIVE_INFINITY,
    faults: 0,
    busy_count: 0,
    bytes: 0,
  };
}

function faultOf(error: unknown): SourceFault {
  if (hasCode(error, 'unavailable')) return 'busy';
  if (hasCode(error, 'not_found')) return 'no_content';
  if (hasCode(error, 'protocol_error')) return 'protocol';
  if (hasCode(error, 'deadline_exceeded')) return 'stalled';
  return 'gone';
}
