import type { Clock } from '../../base/clock.ts';
import { DaemonError } from '../../base/errors.ts';
import type { DaemonProbe, DaemonView } from './context.ts';

/** Status answers from memory: a daemon that needs longer hangs. containerd gives a connection 1 s, too. */
export const STATUS_DEADLINE_MS = 1_000;

type Modules = {
  readonly clock: Clock;
  readonly fetchStatus: (socket_path: string, signal: AbortSignal) => Promise<DaemonView>;
};

/** Asks the daemon for its status once. Resolves within `STATUS_DEADLINE_MS` and never rejects. */
export async function probeDaemon(
  { clock, fetchStatus }: Modules,
  socket_path: string,
  signal: AbortSignal,
): Promise<DaemonProbe> {
  const started_ms = clock.now_ms();
  const deadline = AbortSignal.any([signal, clock.timeout(STATUS_DEADLINE_MS)]);
  const late: Promise<DaemonProbe> = new Promise((resolve) => {
    const message = `no answer within ${STATUS_DEADLINE_MS} ms`;
    deadline.addEventListener('abort', () => resolve({ kind: 'hangs', message }), { once: true });
  });
  const answer = fetchStatus(socket_path, deadline).then(
    (view): DaemonProbe => ({ kind: 'answers', view, elapsed_ms: clock.now_ms() - started_ms }),
    (error: unknown): DaemonProbe => failedProbe(error, deadline.aborted),
  );
  return Promise.race([answer, late]);
}

function failedProbe(error: unknown, is_late: boolean): DaemonProbe {
  const message = error instanceof Error ? error.message : String(error);
  if (is_late) return { kind: 'hangs', message };
  if (!(error instanceof DaemonError)) return { kind: 'broken', message };
  const { code, facts } = error;
  if (code === 'permission_denied') return { kind: 'no-permission', message };
  if (code === 'deadline_exceeded') return { kind: 'hangs', message };
  if (facts['errno'] === 'ENOENT') return { kind: 'no-file', message };
  if (facts['errno'] === 'ECONNREFUSED') return { kind: 'refused', message };
  // A backlog that is full: somebody listens and does not accept.
  if (facts['errno'] === 'EAGAIN') return { kind: 'hangs', message };
  return { kind: 'broken', message };
}
