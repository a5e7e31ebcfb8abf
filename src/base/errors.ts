/**
 * The one closed list of failure codes. A code says what kind of thing happened; `rpc/status.ts` maps each of them
 * to a gRPC status, an HTTP status and an exit code, and does not compile while one is unmapped.
 *
 * - `invalid_argument`    the caller sent something malformed; sending it again will not help
 * - `config_invalid`      the configuration file or a command-line argument cannot be used
 * - `not_found`           the named blob, ingest or peer is not here
 * - `already_exists`      the blob is committed already
 * - `failed_precondition` the state forbids it: digest or size disagree, the store is in use by another daemon
 * - `out_of_range`        an offset beyond the end, or not the current one
 * - `unavailable`         try again: a ref is locked, the daemon is draining
 * - `resource_exhausted`  no space left, or a stated limit is reached
 * - `data_loss`           bytes on disk are not the bytes that were written
 * - `permission_denied`   the file system or a peer's cluster key refuses
 * - `unimplemented`       the operation does not exist here
 * - `cancelled`           the caller went away
 * - `deadline_exceeded`   a wait of ours ran out
 * - `protocol_error`      a peer or client broke the wire protocol; its connection is closed
 * - `internal`            anything unforeseen; its text stays in our log
 */
export type ErrorCode =
  | 'invalid_argument'
  | 'config_invalid'
  | 'not_found'
  | 'already_exists'
  | 'failed_precondition'
  | 'out_of_range'
  | 'unavailable'
  | 'resource_exhausted'
  | 'data_loss'
  | 'permission_denied'
  | 'unimplemented'
  | 'cancelled'
  | 'deadline_exceeded'
  | 'protocol_error'
  | 'internal';

/** Facts that go with an error into the log: small scalar values, never secrets, never payload. */
export type ErrorFacts = Readonly<Record<string, string | number | boolean | undefined>>;

/**
 * Every failure this program foresees. `message` is a whole sentence for a person: what happened, to which object,
 * what to do. Callers decide by `code`, never by text.
 */
export class DaemonError extends Error {
  readonly code: ErrorCode;
  readonly facts: ErrorFacts;

  constructor(code: ErrorCode, message: string, facts: ErrorFacts = {}, options?: ErrorOptions) {
    super(message, options);
    this.name = 'DaemonError';
    this.code = code;
    this.facts = facts;
  }
}

/** True when `error` is a DaemonError with one of these codes. */
export function hasCode(error: unknown, ...codes: readonly ErrorCode[]): error is DaemonError {
  return error instanceof DaemonError && codes.includes(error.code);
}

/** The system error code (`ENOENT`, `ENOSPC`, …) of a failed file or socket operation, if it has one. */
export function errnoOf(error: unknown): string | undefined {
  if (!(error instanceof Error) || !('code' in error)) return undefined;
  return typeof error.code === 'string' ? error.code : undefined;
}

/** True for our own cancellation and for the abort errors that Node and libp2p throw when a signal fires. */
export function isAbort(error: unknown): boolean {
  return hasCode(error, 'cancelled') || (error instanceof Error && error.name === 'AbortError');
}
