import { posix } from 'node:path';
import type { Clock } from '../base/clock.ts';
import { DaemonError } from '../base/errors.ts';
import type { DumpFacts } from './config-dump.ts';
import type { ContainerdIdentity } from './containerd-install.ts';
import { ContainerdRestart, OUR_UNITS } from './containerd-restart.ts';
import type { HostFiles } from './host-files.ts';
import { ctrOf } from './image-check.ts';
import type { RunProgram } from './run-program.ts';

/** What setup and teardown need of the world. */
export type WiringModules = {
  readonly files: HostFiles;
  readonly run: RunProgram;
  readonly clock: Clock;
  /** Resolves when a daemon answers a real call on this socket; rejects with `unavailable` otherwise. */
  readonly daemonAnswers: (socket_path: string, signal: AbortSignal) => Promise<unknown>;
  readonly generateClusterKey: () => Promise<string>;
  /** `config_invalid` when the text is no cluster key; `path` is its name in the message. */
  readonly checkClusterKey: (text: string, path: string) => Promise<void>;
  /** `config_invalid` when the text is no address to find peers at. */
  readonly checkPeerAddress: (text: string) => Promise<void>;
};

/** Our units start at boot from now on. */
export const OUR_UNITS_ENABLE: readonly string[] = ['enable', ...OUR_UNITS];

/** True when systemd runs this host. */
function hasSystemd(files: HostFiles): boolean {
  return files.exists('/run/systemd/system');
}

/** True when our units are installed: a package brought them, or the operator did. */
export function hasOurUnits(files: HostFiles): boolean {
  const directories = ['/etc/systemd/system', '/usr/lib/systemd/system', '/lib/systemd/system'];
  return hasSystemd(files) && directories.some((d) => files.exists(`${d}/layerswarm.service`));
}

/** The restart of this containerd; undefined when there is no `ctr` beside it to check the result with. */
export function restartOf(
  modules: WiringModules,
  containerd: ContainerdIdentity,
  dump: DumpFacts,
  socket_path: string,
): ContainerdRestart | undefined {
  const { files, run, clock, daemonAnswers } = modules;
  const beside = posix.join(posix.dirname(containerd.binary), 'ctr');
  const binary = [beside, '/usr/bin/ctr', '/usr/local/bin/ctr'].find((p) => files.exists(p));
  if (binary === undefined) return undefined;
  return new ContainerdRestart(
    {
      run,
      clock,
      ctr: ctrOf(run, files.at(binary), containerd.socket ?? dump.socket),
      daemonAnswers: (signal) => daemonAnswers(socket_path, signal),
    },
    { unit: unitOf(containerd) },
  );
}

/** The restart, where it can be done and checked; `failed_precondition` says what is missing. */
export function requireRestart(
  files: HostFiles,
  containerd: ContainerdIdentity,
  restart: ContainerdRestart | undefined,
): ContainerdRestart {
  const why = !hasSystemd(files)
    ? 'systemd does not run this host'
    : containerd.pid !== undefined && containerd.unit === undefined
      ? `containerd (pid ${containerd.pid}) was not started by systemd`
      : !hasOurUnits(files)
        ? 'layerswarm.service is not installed'
        : undefined;
  if (restart !== undefined && why === undefined) return restart;
  throw new DaemonError(
    'failed_precondition',
    `--restart-containerd cannot be done: ${why ?? 'there is no ctr beside containerd to check the result with'}. Run this without it and restart containerd yourself`,
  );
}

/** What the operator runs after setup, when setup does not. */
export function setupCommands(files: HostFiles, containerd: ContainerdIdentity): readonly string[] {
  if (hasOurUnits(files)) return [`systemctl restart layerswarm.service ${unitOf(containerd)}`];
  const restart = hasSystemd(files)
    ? `systemctl restart ${unitOf(containerd)}`
    : 'restart containerd';
  return ['layerswarm daemon   # start it first, and keep it supervised', restart];
}

/** What the operator runs after teardown, when teardown does not. containerd first: it must never be without a store. */
export function teardownCommands(files: HostFiles, unit: string): readonly string[] {
  return hasSystemd(files)
    ? [`systemctl restart ${unit}`, `systemctl disable --now ${OUR_UNITS.join(' ')}`]
    : ['restart containerd', 'stop the layerswarm daemon'];
}

/** The unit of a containerd; its usual name when it does not run. */
export function unitOf(containerd: Pick<ContainerdIdentity, 'unit'>): string {
  return containerd.unit ?? 'containerd.service';
}
