import { stat } from 'node:fs/promises';
import { errnoOf, hasCode } from '../../base/errors.ts';
import type { Check } from './context.ts';
import { type Finding, findingOf, type Remark, remark } from './finding.ts';

/** Uptimes are whole seconds; a file this much newer is newer. */
const CLOCK_SLACK_MS = 2_000;

export type ClusterKeyFacts = {
  readonly swarm_enabled: boolean;
  readonly path: string;
  readonly file:
    | { readonly state: 'missing' }
    | { readonly state: 'unreadable'; readonly errno: string }
    | {
        readonly state: 'there';
        readonly mode: number;
        readonly uid: number;
        readonly modified_epoch_ms: number;
        /** Why the daemon would refuse it; undefined when it would not. Never a part of the key. */
        readonly problem: string | undefined;
      };
  /** When the swarm of the answering daemon read its key; undefined when there is none: it reads the key when it can be used. */
  readonly swarm_started_epoch_ms: number | undefined;
};

/** Is there a key, for root alone, of the right form, and is it the one the daemon has read? */
export const clusterKeyCheck: Check<ClusterKeyFacts> = {
  deadline_ms: 3_000,
  gather: async (context) => {
    const { enabled, cluster_key_file: path } = context.config.config.swarm;
    const daemon = await context.daemon();
    const swarm = daemon.kind === 'answers' ? daemon.view.swarm : null;
    const now_ms = Number(context.clock.wall_ns() / 1_000_000n);
    return {
      swarm_enabled: enabled,
      path,
      file: await keyFile(path, context.loadClusterKey),
      swarm_started_epoch_ms:
        swarm?.enabled === true ? now_ms - swarm.uptimeSeconds * 1000 : undefined,
    };
  },
  judge: judgeClusterKey,
};

async function keyFile(
  path: string,
  loadClusterKey: (path: string) => Promise<void>,
): Promise<ClusterKeyFacts['file']> {
  try {
    const { mode, uid, mtimeMs } = await stat(path);
    const problem = await loadClusterKey(path).then(
      () => undefined,
      (error: unknown) => {
        if (!hasCode(error, 'config_invalid')) throw error;
        return error.message;
      },
    );
    const modified_epoch_ms = Math.round(mtimeMs);
    return { state: 'there', mode: mode & 0o777, uid, modified_epoch_ms, problem };
  } catch (error) {
    const errno = errnoOf(error);
    if (errno === undefined) throw error;
    return errno === 'ENOENT' ? { state: 'missing' } : { state: 'unreadable', errno };
  }
}

export function judgeClusterKey(facts: ClusterKeyFacts): Finding {
  const { path, file, swarm_enabled } = facts;
  if (!swarm_enabled) {
    const text = 'the configuration turns the swarm off, so no key is needed';
    return findingOf('cluster-key', '', [remark('note', text)], { swarm_enabled, path });
  }
  const shown = file.state === 'there' ? { ...file, mode: octal(file.mode) } : file;
  const told = { swarm_enabled, path, file: shown };
  return findingOf('cluster-key', `${path} is there, for root alone`, remarksOf(facts), told);
}

function remarksOf(facts: ClusterKeyFacts): Remark[] {
  const { path, file, swarm_started_epoch_ms: started_ms } = facts;
  if (file.state === 'missing') {
    const text = `there is no cluster key at ${path}: this host is in no swarm`;
    const copy = 'copy the key file of another host: layerswarm setup --cluster-key FILE';
    const make = `or, on the first host: layerswarm keygen --out ${path}`;
    return [remark('fail', text, copy, make)];
  }
  if (file.state === 'unreadable') {
    const text = `the cluster key ${path} cannot be looked at (${file.errno})`;
    return [remark('fail', text, 'sudo layerswarm doctor')];
  }
  if ((file.mode & 0o077) !== 0) {
    const text = `the cluster key ${path} may be read by others (mode ${octal(file.mode)}); the daemon refuses it`;
    return [remark('fail', text, `chmod 600 ${path}`)];
  }
  const remarks: Remark[] = [];
  if (file.problem !== undefined) {
    const make = `copy the key file of another host: layerswarm setup --cluster-key FILE`;
    remarks.push(remark('fail', file.problem, make));
  }
  if (file.uid !== 0) {
    const text = `the cluster key ${path} belongs to user ${file.uid}, who can read and replace it`;
    remarks.push(remark('warn', text, `chown root:root ${path}`));
  }
  if (started_ms !== undefined && file.modified_epoch_ms > started_ms + CLOCK_SLACK_MS) {
    const text = `${path} has changed since the swarm came up, which still uses the key it read then`;
    remarks.push(remark('warn', text, 'systemctl restart layerswarm.service'));
  }
  return remarks;
}

function octal(mode: number): string {
  return mode.toString(8).padStart(4, '0');
}
