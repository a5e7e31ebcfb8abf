/**
 * "Do not use this source", in one vocabulary for planning, standing, status, metrics and logs. Two notions, no third:
 *
 * - *excluded* for a reason until a time: it is asked for nothing before;
 * - *demoted* for a reason: it is asked only when nobody better can be. A preference; its next good answer ends it.
 *
 * A *verdict* (`isVerdict`) says that the source lied or broke the protocol: the swarm bans the host behind it. Everything
 * else only says that it is of no use now, and blames nobody.
 */
export type ExclusionReason =
  /** Pull: its bytes disagree with the list that it claims itself, twice. Out of this session for good; a verdict. */
  | 'wrong_piece'
  /** Pull: the whole blob disagreed although every piece matched its list. Out of this session for good; a verdict. */
  | 'wrong_list'
  /** Pull: it broke the wire protocol. Out of this session for good; a verdict. */
  | 'protocol'
  /** Swarm: a verdict is in force. Not connected, no candidate, until the ban expires; each further ban is twice as long. */
  | 'banned'
  /** Pull: it sent a piece that does not fit the list in use, and is not known to claim that list. Out while this list is used. */
  | 'other_list'
  /** Pull: it announced the blob and does not have it; swarm: it announces no such blob. Out for this blob only. */
  | 'no_content'
  /** Pull: no byte in the time in which one must come. Out for all pulls for a second, longer each time in a row, and until a byte comes. */
  | 'stalled'
  /** Pull: the connection was lost or refused. Out for all pulls for a second, longer each time in a row. */
  | 'gone'
  /** Pull: a pull that was waited for got less than the lowest rate from it, in all the time it has. Out for all pulls for half a minute. */
  | 'too_slow'
  /** Pull: it cannot begin now. Out for all pulls until the time it named, else for a growing pause up to a second. Worth waiting for. */
  | 'busy';

/** In force until `until_ms` of the monotonic clock; Infinity = for good. */
export type Exclusion = {
  readonly reason: ExclusionReason;
  readonly until_ms: number;
  /** True when the source itself named the time. */
  readonly promised?: boolean;
};

/** What the pull room may say of a source to its owner, who then decides what follows for the host behind it. */
export type SourceFault = Exclude<ExclusionReason, 'banned' | 'other_list'>;

/** Faults that only a liar or a broken implementation commits. */
export type Verdict = Extract<SourceFault, 'wrong_piece' | 'wrong_list' | 'protocol'>;

/** True when a fault is the source's guilt and not its weakness. */
export function isVerdict(reason: ExclusionReason): reason is Verdict {
  return reason === 'wrong_piece' || reason === 'wrong_list' || reason === 'protocol';
}

/**
 * Why a source comes last. `stalled` = one of its requests stalled and it has delivered nothing since; `wrong_list` = it repeats a list
 * that was refuted before it spoke, for this blob.
 */
export type Demotion = Extract<ExclusionReason, 'stalled' | 'wrong_list'>;
