import { errnoOf, hasCode } from '../../base/errors.ts';
import type { ConnectResult } from '../metrics.ts';

/** How deep causes are followed. */
const MAX_DEPTH = 5;

const BY_ERRNO: Readonly<Record<string, ConnectResult>> = {
  ECONNREFUSED: 'refused',
  ECONNRESET: 'gone',
  EPIPE: 'gone',
  ETIMEDOUT: 'timeout',
  EHOSTUNREACH: 'unreachable',
  ENETUNREACH: 'unreachable',
  ENOTFOUND: 'unreachable',
};

const BY_NAME: Readonly<Record<string, ConnectResult>> = {
  // libp2p's upgrader throws this for nothing but a handshake with ourselves.
  InvalidPeerIdError: 'self',
  UnexpectedPeerError: 'wrong_peer',
  TimeoutError: 'timeout',
  AbortError: 'timeout',
};

/** Names the reason of a failed dial from error classes and system codes, never from texts. */
export function dialFailure(error: unknown, depth = 0): ConnectResult {
  if (!(error instanceof Error) || depth > MAX_DEPTH) return 'unreachable';
  const direct = BY_ERRNO[errnoOf(error) ?? ''] ?? BY_NAME[error.name];
  if (direct !== undefined) return direct;
  if (hasCode(error, 'deadline_exceeded')) return 'timeout';
  const inner: unknown[] = error instanceof AggregateError ? error.errors : [error.cause];
  const found = inner.map((e) => dialFailure(e, depth + 1));
  return found.find((result) => result !== 'unreachable') ?? 'unreachable';
}
