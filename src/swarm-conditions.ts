import { stat } from 'node:fs/promises';
import { DaemonError, errnoOf } from './base/errors.ts';
import type { Cause } from './ops/conditions.ts';
import type { SwarmConfig } from './swarm/config.ts';

/** What an operator is told of a swarm that is not as it should be. */
export type SwarmCondition = {
  readonly cause: Extract<Cause, 'cluster_key' | 'swarm_listen' | 'swarm_failed'>;
  readonly what: string;
  readonly mend: readonly string[];
  readonly err?: unknown;
};

/** Without a key there is no swarm; the daemon looks again every few seconds. */
export function noKey(path: string): SwarmCondition {
  return {
    cause: 'cluster_key',
    what: `no cluster key at ${path}: this host is in no swarm`,
    mend: [
      `copy the key file of another host: layerswarm setup --cluster-key FILE`,
      `or, on the first host: layerswarm keygen --out ${path}`,
    ],
  };
}

/** Why the swarm is not up, in an operator's words, with what mends it. Never text of a peer: an unforeseen error gives its name only. */
export async function swarmCondition(
  error: unknown,
  config: Pick<SwarmConfig, 'cluster_key_file' | 'port'>,
): Promise<SwarmCondition> {
  const { cluster_key_file: key_file, port } = config;
  if (lacksDescriptors(error)) return noDescriptor(error);
  if (!(error instanceof DaemonError)) return defect(error);
  const what = error.message.replace(/\.$/, '');
  const { path, listen_errno } = error.facts;
  if (path === key_file) {
    return { cause: 'cluster_key', what, mend: await keyMend(key_file) };
  }
  if (listen_errno !== undefined) {
    const mend =
      listen_errno === 'EADDRINUSE'
        ? [
            `ss -lntup 'sport = :${port}'`,
            'end the program that has the port; or change [swarm] listen_port, then: systemctl restart layerswarm',
          ]
        : [
            'ip -brief address',
            'change [swarm] listen_addresses to addresses of this host, then: systemctl restart layerswarm',
          ];
    return { cause: 'swarm_listen', what, mend };
  }
  if (error.code === 'internal') return defect(error);
  const mend = ['layerswarm doctor', 'journalctl -u layerswarm -p warning -n 50'];
  return { cause: 'swarm_failed', what, mend, err: error };
}

/** True for an error that came of open files at their limit, ours or the machine's, also where a sentence of ours wraps it. */
function lacksDescriptors(error: unknown): error is Error {
  for (let at = error; at instanceof Error; at = at.cause) {
    const errno = at instanceof DaemonError ? at.facts['listen_errno'] : errnoOf(at);
    if (errno === 'EMFILE' || errno === 'ENFILE') return true;
  }
  return false;
}

function noDescriptor(err: Error): SwarmCondition {
  return {
    cause: 'swarm_failed',
    what: 'no file descriptor is free for the swarm, which is started again by itself',
    mend: [
      'systemctl show layerswarm --property LimitNOFILE',
      'ls /proc/$(systemctl show layerswarm --property MainPID --value)/fd | wc -l',
      'raise LimitNOFILE (systemctl edit layerswarm), then: systemctl restart layerswarm',
    ],
    err,
  };
}

function defect(error: unknown): SwarmCondition {
  const name = error instanceof Error ? (errnoOf(error) ?? error.name) : 'unknown';
  return {
    cause: 'swarm_failed',
    what: `the swarm was ended by a defect (${name}) and is started again by itself`,
    mend: ['journalctl -u layerswarm -n 100', 'report the defect with these lines'],
    err: error,
  };
}

async function keyMend(path: string): Promise<readonly string[]> {
  const mode = await stat(path).then(
    (s) => s.mode & 0o077,
    () => 0,
  );
  if (mode !== 0) return [`chmod 600 ${path}`];
  return [
    'copy the key file of another host: layerswarm setup --cluster-key FILE',
    `or, where there is no other host: layerswarm keygen --force --out ${path}`,
  ];
}
