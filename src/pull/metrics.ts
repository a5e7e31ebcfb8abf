import type { MetricRegister } from '../ops/register.ts';
import type { PieceSource } from '../piece/source.ts';

/** How a session ended: `nothing` = settled with prefix 0; `aborted` = nobody waited any longer. */
export type SessionResult = 'complete' | 'prefix' | 'nothing' | 'aborted';

/** What became of one request for a piece. */
export type PieceResult = 'ok' | 'wrong' | 'late' | 'failed';

export type PullMetrics = ReturnType<typeof createPullMetrics>;

/** The pull room's metrics. */
export function createPullMetrics(register: MetricRegister) {
  return {
    bytes: register.counter<{ source: PieceSource['kind'] }>({
      name: 'pull_bytes_total',
      help: 'Verified bytes taken into blobs, by kind of source.',
      labels: ['source'],
    }),
    pieces: register.counter<{ result: PieceResult }>({
      name: 'pull_pieces_total',
      help: 'Requests for pieces by result; late = another source was faster.',
      labels: ['result'],
    }),
    sessions: register.counter<{ outcome: SessionResult }>({
      name: 'pull_sessions_total',
      help: 'Finished pull sessions by outcome.',
      labels: ['outcome'],
    }),
    stalls: register.counter<{ kind: 'silent' | 'slow' }>({
      name: 'pull_stalls_total',
      help: 'Pieces that stayed silent or fell below the minimum rate.',
      labels: ['kind'],
    }),
    hedges: register.counter<{ reason: 'hedge' | 'endgame' }>({
      name: 'pull_hedges_total',
      help: 'Pieces asked for a second time: hedge = after a stall, endgame = at the end of a blob.',
      labels: ['reason'],
    }),
    misses: register.counter({
      name: 'pull_misses_total',
      help: 'Blobs asked for that no source had.',
    }),
    session_seconds: register.histogram<{ outcome: SessionResult }>({
      name: 'pull_session_duration_seconds',
      help: 'Time from the start of a session to its outcome.',
      labels: ['outcome'],
      // From the small-blob bound (0.1 s) to a large layer over a slow line.
      buckets: [0.05, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 300],
    }),
    piece_seconds: register.histogram({
      name: 'pull_piece_duration_seconds',
      help: 'Time from the request for a piece to its last byte.',
      // 4 MiB at 10 Gbit/s take 3 ms, at 30 Mbit/s 1.1 s.
      buckets: [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5],
    }),
  };
}
