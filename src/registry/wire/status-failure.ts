import type { Clock } from '../../base/clock.ts';
import { DaemonError, type ErrorCode } from '../../base/errors.ts';
import { parseRetryAfter } from './answer-headers.ts';
import type { Answer } from './exchange.ts';

/** Statuses with a meaning of their own; the others go by their first digit. */
const CODES: Readonly<Record<number, ErrorCode>> = {
  401: 'permission_denied',
  403: 'permission_denied',
  404: 'not_found',
  408: 'unavailable',
  410: 'not_found',
  416: 'out_of_range',
  425: 'unavailable',
  429: 'unavailable',
};

/**
 * What an answer that is no success means. Its fact `status` is the number; `retry_after_ms` stands there when the server named a time.
 * The body is not looked at: what is in it is the server's business, and may repeat what it was sent.
 */
export function statusFailure(
  clock: Pick<Clock, 'wall_ns'>,
  { answer, server, what }: { answer: Answer; server: string; what: string },
): DaemonError {
  const { status } = answer;
  const code = CODES[status] ?? (status >= 500 ? 'unavailable' : 'protocol_error');
  const now_epoch_ms = Number(clock.wall_ns() / 1_000_000n);
  const told = answer.header('retry-after');
  const retry_after_ms = told === undefined ? undefined : parseRetryAfter(told, now_epoch_ms);
  const wait =
    retry_after_ms === undefined ? '' : `, again in ${Math.ceil(retry_after_ms / 1000)} s`;
  return new DaemonError(code, `${server} answers ${status} for ${what}${wait}`, {
    ...{ server, status },
    ...(retry_after_ms !== undefined && { retry_after_ms }),
  });
}
