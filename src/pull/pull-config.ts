/** The `[pull]` section of the configuration. */
export type PullConfig = {
  /** Blobs fetched at the same time, waited for or not. */
  readonly sessions_max: number;
  /** Pieces (up to 4 MiB each, in memory) fetched at the same time over all blobs. */
  readonly pieces_in_flight_max: number;
  /** Silence, before or within a piece, after which it is asked for elsewhere. */
  readonly first_byte_timeout_ms: number;
  /** Rate below which a piece is asked for elsewhere too; 0 switches the check off. */
  readonly min_bytes_per_second: number;
  /** From join to settle for `small` targets. */
  readonly small_wait_ms: number;
  /** Longest wait while every holder is busy. */
  readonly busy_wait_ms: number;
  /** Time without worthwhile progress after which waiters get what is there. */
  readonly no_progress_ms: number;
  /** How long a session goes on, or its prefix is kept, when nobody waits any more. */
  readonly linger_ms: number;
};

/** Bounds that nobody needs to turn. */
export const PULL_LIMITS = {
  /** Sources one session keeps; the finder gives the best first. */
  sources_max: 64,
  /** Lists asked for in one round: enough for a majority against one liar. */
  list_askers: 3,
  /** After a round without any list the next holders are asked as well. Below the stall bound of 1 s. */
  list_round_ms: 300,
  /** Once one list is there, others have this long to disagree; about one round trip within a region. */
  list_grace_ms: 50,
  /** A blob is begun anew with another list this often, then given up. */
  restarts_max: 3,
  /** Missing pieces the planner sees at once; keeps planning cheap for a blob of any size. */
  plan_window: 64,
  /** Pieces out of which one is drawn when nobody waits: hosts that fetch alike then ask for different ones, and the hash stays close behind. */
  spread_window: 16,
  /** A near source at which a piece takes longer than this is not waited for, unless it gives this part of what a far one does. */
  near_piece_ms: 2000,
  near_handicap: 4,
  /** A near source that is busy is waited for this long, and this many times in a row. */
  near_busy_ms: 1000,
  near_busy_max: 3,
  /** A source that was busy so often in a row, each time at the time it had named, is not taken at its word any more. */
  busy_streak_max: 10,
  /** A blob of at most this size does not queue behind pieces of others. */
  small_bytes: 64 * 1024,
  /** A piece under way is asked for twice only when the copy would take this part of the time that is left: the loser's bytes are lost. */
  endgame_gain: 3,
  /** And only when the piece would come this much later than the copy: less is not worth a piece's bytes on somebody's busy link. In ms. */
  endgame_least_ms: 500,
  /** Window over which the rate of a piece is judged. */
  rate_window_ms: 2000,
  /** Finest distance of rate samples and rate checks. */
  rate_step_ms: 250,
  /** A source that stalled or was gone so often in a row, without a piece in between, is of no use for this blob. */
  faults_max: 3,
  /** How often the finder is asked for further sources while a session runs. */
  refind_ms: 1000,
  /** Sessions that nobody waits for. */
  background_sessions_max: 32,
  /** Delivered prefixes whose list authors are remembered. */
  delivered_max: 256,
  /** Piece hashing gives the event loop a turn after this many bytes (0.7 ms with SHA-NI). */
  hash_slice_bytes: 1024 * 1024,
} as const;
