import { readFile, readlink, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { DaemonError } from '../../base/errors.ts';
import { type DumpFacts, dumpFacts } from '../config-dump.ts';
import { parseContainerd, stringList } from '../containerd-config.ts';
import { type ContainerdInstall, findContainerds } from '../containerd-install.ts';
import { HostFiles } from '../host-files.ts';
import type { ProgramResult, RunProgram } from '../run-program.ts';

/** Where containerd looks for its configuration unless told otherwise. */
const DEFAULT_CONFIG = '/etc/containerd/config.toml';
const DEFAULT_ADDRESS = '/run/containerd/containerd.sock';
/** Linux counts process start times in hundredths of a second for user space, on every architecture. */
const TICKS_PER_SECOND = 100;
/** Longest `--version` or `config dump` may take, in ms. */
const DUMP_DEADLINE_MS = 5_000;
/** Start times are counted from a boot time in whole seconds; a file this much newer than a start is newer. */
export const CLOCK_SLACK_MS = 2_000;
/** Variables of containerd's environment that matter here; the others may hold secrets and are not kept. */
const KEPT_VARIABLES = ['PATH', 'CONTAINERD_DISABLE_PIGZ', 'CONTAINERD_DISABLE_IGZIP'];

/** A running containerd. */
export type ContainerdProcess = ContainerdInstall & {
  readonly pid: number;
  /** The file it was started from has been replaced since, as by a package upgrade. */
  readonly replaced: boolean;
  readonly started_epoch_ms: number;
  readonly environment: Readonly<Record<string, string>>;
  /** In the mount namespace of whoever asks: not the containerd of some container. */
  readonly is_ours: boolean;
};

/** What `config dump` says, or why it says nothing. */
export type EffectiveConfig =
  | (DumpFacts & { readonly imports: readonly string[] })
  | { readonly failure: string };

/** The containerd that is looked at, and what it says about itself. */
export type ContainerdProbe =
  | {
      readonly kind: 'absent';
      readonly config_file: string | undefined;
      /** The unit that would run it. */
      readonly unit: string | undefined;
    }
  | {
      readonly kind: 'runs';
      readonly process: ContainerdProcess;
      /** Configuration files of further containerds of this host. */
      readonly others: readonly string[];
      /** As in `2.1.9`; undefined when it does not say. */
      readonly version: string | undefined;
      readonly ctr: string;
      readonly address: string;
      readonly effective: EffectiveConfig;
    };

/** Finds the running containerd (the one with `config_file`, when named) and reads its effective configuration. */
export async function probeContainerd(
  run: RunProgram,
  config_file: string | undefined,
  signal: AbortSignal,
): Promise<ContainerdProbe> {
  const installs = await findContainerds({ files: new HostFiles(), run }, signal);
  const { chosen, others } = chooseRunning(await runningOf(installs), config_file);
  if (chosen === undefined) {
    const unit = installs.find((c) => c.unit !== undefined)?.unit;
    return { kind: 'absent', config_file, unit };
  }
  const limits = { signal, deadline_ms: DUMP_DEADLINE_MS };
  const told = await run([chosen.binary, '--version'], limits).catch(() => undefined);
  const argv = [chosen.binary, '--config', chosen.config_file, 'config', 'dump'];
  const effective = await run(argv, limits).then(effectiveConfig, failed);
  return {
    kind: 'runs',
    process: chosen,
    others,
    version: parseVersion(told?.stdout ?? ''),
    ctr: await ctrBeside(chosen.binary),
    address: chosen.socket ?? ('failure' in effective ? DEFAULT_ADDRESS : effective.socket),
    effective,
  };
}

/** The socket of the running containerd. `unavailable` when none runs (or none with `config_file`). */
export async function containerdAddress(
  run: RunProgram,
  config_file: string | undefined,
  signal: AbortSignal,
): Promise<string> {
  const probe = await probeContainerd(run, config_file, signal);
  if (probe.kind === 'runs') return probe.address;
  const which = config_file === undefined ? '' : ` with the configuration ${config_file}`;
  throw new DaemonError(
    'unavailable',
    `no containerd${which} runs here: start it with systemctl start ${probe.unit ?? 'containerd'}, or name its socket with --containerd-address`,
  );
}

/** The command that restarts it. */
export function restartCommand(process: ContainerdProcess): string {
  return `systemctl restart ${process.unit ?? 'containerd'}`;
}

/** `2.1.9` of `containerd github.com/containerd/containerd/v2 2.1.9+unknown …`. */
export function parseVersion(text: string): string | undefined {
  return /\bv?(\d+\.\d+\.\d+)/.exec(text.replace(/^containerd \S+/, ''))?.[1];
}

/** Reads the answer of `containerd config dump`. */
export function effectiveConfig(result: ProgramResult): EffectiveConfig {
  if (result.code !== 0) {
    const told = result.stderr.trim().split('\n').at(-1) ?? '';
    return { failure: `it ended with ${String(result.code)}: ${told.slice(0, 300)}` };
  }
  try {
    const dump = parseContainerd(result.stdout, 'config dump');
    return { ...dumpFacts(dump), imports: stringList(dump, 'imports') };
  } catch (error) {
    return failed(error);
  }
}

/**
 * The one to look at: with the configuration file that was named; else the one with the packaged file, else any of
 * this mount namespace. Containerds inside containers are not meant.
 */
export function chooseRunning<P extends Pick<ContainerdProcess, 'config_file' | 'is_ours'>>(
  found: readonly P[],
  config_file: string | undefined,
): { readonly chosen: P | undefined; readonly others: readonly string[] } {
  const ours = found.filter((p) => p.is_ours);
  const chosen =
    config_file !== undefined
      ? (ours.find((p) => p.config_file === config_file) ??
        found.find((p) => p.config_file === config_file))
      : (ours.find((p) => p.config_file === DEFAULT_CONFIG) ?? ours[0]);
  const others = ours.filter((p) => p !== chosen).map((p) => p.config_file);
  return { chosen, others };
}

/** Start of a process in ms since the epoch, from /proc/PID/stat and the boot time of /proc/stat. */
export function startOf(process_stat: string, system_stat: string): number {
  // The second field is the name in parentheses and may hold anything; the start time is the 20th after it.
  const fields = process_stat.slice(process_stat.lastIndexOf(')') + 2).split(' ');
  const booted_s = Number(/^btime (\d+)$/m.exec(system_stat)?.[1] ?? 0);
  return (booted_s + Number(fields[19] ?? 0) / TICKS_PER_SECOND) * 1000;
}

async function runningOf(installs: readonly ContainerdInstall[]): Promise<ContainerdProcess[]> {
  const found: ContainerdProcess[] = [];
  for (const install of installs) {
    const { pid } = install;
    if (pid === undefined) continue;
    // Processes end while they are looked at; what cannot be read is not there.
    const one = await readProcess({ ...install, pid }).catch(() => undefined);
    if (one !== undefined) found.push(one);
  }
  return found;
}

async function readProcess(
  install: ContainerdInstall & { readonly pid: number },
): Promise<ContainerdProcess> {
  const dir = `/proc/${install.pid}`;
  const [process_stat, system_stat, environ] = await Promise.all([
    readFile(join(dir, 'stat'), 'utf8'),
    readFile('/proc/stat', 'utf8'),
    // Another user's; without it the rest still tells something.
    readFile(join(dir, 'environ'), 'utf8').catch(() => ''),
  ]);
  return {
    ...install,
    replaced: (await link(join(dir, 'exe'))).endsWith(' (deleted)'),
    started_epoch_ms: startOf(process_stat, system_stat),
    environment: keptVariables(environ),
    is_ours: ['', await link('/proc/self/ns/mnt')].includes(await link(join(dir, 'ns/mnt'))),
  };
}

/** '' when it cannot be read. */
async function link(path: string): Promise<string> {
  return readlink(path).catch(() => '');
}

function keptVariables(environ: string): Record<string, string> {
  const pairs = environ.split('\0').map((line): [string, string] => {
    const at = line.indexOf('=');
    return [line.slice(0, at), line.slice(at + 1)];
  });
  return Object.fromEntries(pairs.filter(([name]) => KEPT_VARIABLES.includes(name)));
}

/** The client that came with it; the one on our PATH otherwise. */
async function ctrBeside(program: string): Promise<string> {
  const beside = join(dirname(program), 'ctr');
  const is_there = await stat(beside).then(
    (s) => s.isFile(),
    () => false,
  );
  return is_there ? beside : 'ctr';
}

function failed(error: unknown): { failure: string } {
  return { failure: error instanceof Error ? error.message : String(error) };
}
