import type { Check, DaemonProbe } from './context.ts';
import { STATUS_DEADLINE_MS } from './daemon-probe.ts';
import { type Finding, findingOf, type Remark, remark } from './finding.ts';

export type SocketFacts = { readonly socket_path: string; readonly probe: DaemonProbe };

/** Does the daemon answer on its socket, and within the time containerd gives it? */
export const socketCheck: Check<SocketFacts> = {
  deadline_ms: 3_000,
  gather: async (context) => ({
    socket_path: context.config.config.content.socket_path,
    probe: await context.daemon(),
  }),
  judge: judgeSocket,
};

export function judgeSocket({ socket_path, probe }: SocketFacts): Finding {
  if (probe.kind !== 'answers') {
    const facts = { socket_path, answers: false, reason: probe.kind };
    return findingOf('socket', '', [unanswered(socket_path, probe)], facts);
  }
  const { view } = probe;
  const elapsed_ms = Math.round(probe.elapsed_ms);
  const facts = {
    socket_path,
    answers: true,
    elapsed_ms,
    version: view.version,
    pid: view.pid,
    state: view.state,
  };
  const fine = `the daemon (${view.version}, pid ${view.pid}) answers on ${socket_path}`;
  return findingOf('socket', fine, stateRemarks(view.state, view.reason), facts);
}

function unanswered(path: string, probe: Exclude<DaemonProbe, { kind: 'answers' }>): Remark {
  switch (probe.kind) {
    case 'no-file':
      return remark(
        'fail',
        `there is no socket at ${path}: the daemon does not run`,
        'systemctl enable --now layerswarm.socket layerswarm.service',
      );
    case 'refused':
      return remark(
        'fail',
        `nobody listens on ${path}: the daemon has ended and left the file`,
        'systemctl restart layerswarm.socket layerswarm.service',
      );
    case 'no-permission':
      return remark(
        'fail',
        `this user may not connect to ${path}: only root may`,
        'sudo layerswarm doctor',
      );
    case 'hangs':
      return remark(
        'fail',
        `the daemon does not answer on ${path} within ${STATUS_DEADLINE_MS} ms: it is starting, or it hangs`,
        'journalctl -u layerswarm -n 50',
        'systemctl restart layerswarm.service',
      );
    case 'broken':
      return remark(
        'fail',
        `what listens on ${path} does not answer as the daemon does: ${probe.message}`,
        'journalctl -u layerswarm -n 50',
        'systemctl restart layerswarm.service',
      );
  }
}

function stateRemarks(state: string, reason: string): Remark[] {
  const why = reason === '' ? '' : `: ${reason}`;
  if (state === 'starting' || state === 'draining') {
    return [remark('warn', `the daemon is ${state}${why}`, 'layerswarm status --watch')];
  }
  // Degraded and alone daemons serve; what they miss has its own check.
  return [];
}
