import { randomBytes } from 'node:crypto';
import { DaemonError, type ErrorCode } from '../base/errors.ts';

type Statuses = { readonly grpc: number; readonly http: number; readonly exit: number };

/**
 * THE table: what each failure code is called outside. gRPC numbers as in grpc.io's status code list, HTTP as in
 * RFC 9110 (499 is nginx's "client closed request"), exit codes as in sysexits(3), 79 and up where it has no word.
 */
export const STATUS = {
  invalid_argument: { grpc: 3, http: 400, exit: 64 },
  config_invalid: { grpc: 3, http: 400, exit: 78 },
  not_found: { grpc: 5, http: 404, exit: 66 },
  already_exists: { grpc: 6, http: 409, exit: 73 },
  failed_precondition: { grpc: 9, http: 412, exit: 80 },
  out_of_range: { grpc: 11, http: 416, exit: 79 },
  unavailable: { grpc: 14, http: 503, exit: 69 },
  resource_exhausted: { grpc: 8, http: 507, exit: 74 },
  data_loss: { grpc: 15, http: 500, exit: 65 },
  permission_denied: { grpc: 7, http: 403, exit: 77 },
  unimplemented: { grpc: 12, http: 501, exit: 81 },
  cancelled: { grpc: 1, http: 499, exit: 130 },
  deadline_exceeded: { grpc: 4, http: 504, exit: 75 },
  protocol_error: { grpc: 13, http: 400, exit: 76 },
  internal: { grpc: 13, http: 500, exit: 70 },
} as const satisfies Record<ErrorCode, Statuses>;

/** How a call ended, as a server writes it and a metric counts it. */
export type CallStatus = {
  readonly code: 'ok' | ErrorCode;
  readonly grpc: number;
  readonly message: string;
};

/** The end of a call without failure. */
export const OK: CallStatus = { code: 'ok', grpc: 0, message: '' };

/** gRPC numbers that several codes share, or that none of ours makes, and what they are read back as. */
const FROM_GRPC = new Map<number, ErrorCode>([
  ...(Object.entries(STATUS) as [ErrorCode, Statuses][]).map(
    ([code, { grpc }]): [number, ErrorCode] => [grpc, code],
  ),
  [3, 'invalid_argument'],
  [10, 'unavailable'], // ABORTED: the transaction may be tried again
  [13, 'internal'],
  [16, 'permission_denied'], // UNAUTHENTICATED
]);

/** What a log line needs to find the full text of an error whose client was told only the id. */
export type UnforeseenError = { readonly id: string; readonly err: unknown };

/**
 * The status a client sees for a failure of ours. A DaemonError gives its code and message; an abort or a timeout of
 * the platform gives `cancelled` or `deadline_exceeded`. Anything else becomes INTERNAL with an id, its text goes to
 * `unforeseen` (the log) and nowhere else.
 */
export function toGrpcStatus(
  error: unknown,
  unforeseen: (found: UnforeseenError) => void,
): CallStatus {
  if (error instanceof DaemonError) return statusOf(error.code, error.message);
  if (error instanceof Error && error.name === 'AbortError') {
    return statusOf('cancelled', 'the call was cancelled');
  }
  if (error instanceof Error && error.name === 'TimeoutError') {
    return statusOf('deadline_exceeded', 'a wait of the daemon ran out');
  }
  const id = randomBytes(6).toString('hex');
  unforeseen({ id, err: error });
  return statusOf('internal', `internal error, id=${id}; the daemon's log has its text`);
}

/** A status from a code of ours. */
export function statusOf(code: ErrorCode, message: string): CallStatus {
  return { code, grpc: STATUS[code].grpc, message };
}

/** The error that a gRPC status means to a client of ours; unknown numbers are `internal`. */
export function fromGrpcStatus(grpc: number, message: string): DaemonError {
  return new DaemonError(FROM_GRPC.get(grpc) ?? 'internal', message, { grpc_code: grpc });
}
