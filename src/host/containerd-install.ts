import { posix } from 'node:path';
import { DaemonError } from '../base/errors.ts';
import { type Distribution, distributionOf } from './managed-containerd.ts';
import type { HostFiles } from './host-files.ts';
import type { RunProgram } from './run-program.ts';

/** Where containerd reads its configuration when nobody says otherwise. */
const CONFIG_FILE = '/etc/containerd/config.toml';
/** Its unit, as Debian, containerd.io and the upstream archive name it. */
const UNIT = 'containerd.service';
const BINARIES = ['/usr/bin/containerd', '/usr/local/bin/containerd', '/usr/sbin/containerd'];
/** Longest time for programs that only print something, in ms. */
const ASK_DEADLINE_MS = 20_000;

/** One containerd of this host, as far as it can be told without asking its socket. */
export type ContainerdInstall = {
  /** Path of the program. */
  readonly binary: string;
  readonly config_file: string;
  /** `--root` and `--address` of its command line; they go before the configuration file. */
  readonly root: string | undefined;
  readonly socket: string | undefined;
  /** The systemd unit that runs it; undefined when it was started otherwise. */
  readonly unit: string | undefined;
  readonly pid: number | undefined;
  /** Who writes its configuration: `plain` is the operator. */
  readonly distribution: Distribution;
};

/** A containerd with the answers of its program and of the package database. */
export type ContainerdIdentity = ContainerdInstall & {
  readonly version: string;
  readonly major: number;
  readonly minor: number;
  /** The package that brought it, such as `containerd.io`; undefined when none did. */
  readonly package_name: string | undefined;
};

type Modules = { readonly files: HostFiles; readonly run: RunProgram };

/**
 * Every containerd of this host: those that run, the systemd unit, and otherwise the program where packages put it.
 * Those inside of containers (another PID namespace) do not count.
 */
export async function findContainerds(
  modules: Modules,
  signal: AbortSignal,
): Promise<readonly ContainerdInstall[]> {
  const { files } = modules;
  const found = running(files);
  if (!found.some((c) => c.unit === UNIT)) {
    const stopped = await fromUnit(modules, signal);
    if (stopped !== undefined) found.push(stopped);
  }
  if (found.length > 0) return found;
  const binary = BINARIES.find((path) => files.exists(path));
  if (binary === undefined) return [];
  return [install({ files, argv: [binary], binary, unit: undefined, pid: undefined, parent: '' })];
}

/**
 * The one that is meant. `not_found` when there is none, `failed_precondition` when there are several and no
 * configuration file tells which.
 */
export function chooseContainerd(
  found: readonly ContainerdInstall[],
  config_file: string | undefined,
): ContainerdInstall {
  const [only, ...others] =
    config_file === undefined ? found : found.filter((c) => c.config_file === config_file);
  if (only !== undefined && others.length === 0) return only;
  const list = found.map((c) => `${c.config_file} (${c.unit ?? c.binary})`).join(', ');
  if (only === undefined && config_file !== undefined && found.length > 0) {
    throw new DaemonError(
      'not_found',
      `no containerd of this host uses ${config_file}; there are: ${list}`,
      { config_file },
    );
  }
  if (only === undefined) {
    throw new DaemonError(
      'not_found',
      'there is no containerd on this host: install it (apt install containerd, or containerd.io) and run this again',
    );
  }
  throw new DaemonError(
    'failed_precondition',
    `there are several containerds on this host; say which with --containerd-config FILE: ${list}`,
  );
}

/** Asks the program for its version and the package database for its name. `failed_precondition` below 1.6. */
export async function identifyContainerd(
  { files, run }: Modules,
  found: ContainerdInstall,
  signal: AbortSignal,
): Promise<ContainerdIdentity> {
  const limits = { signal, deadline_ms: ASK_DEADLINE_MS };
  const { stdout } = await run([files.at(found.binary), '--version'], limits);
  const numbers = /\bv?(\d+)\.(\d+)\.(\d+)/.exec(stdout);
  if (numbers === null) {
    throw new DaemonError('failed_precondition', `${found.binary} --version names no version`, {
      binary: found.binary,
    });
  }
  const [version, major, minor] = [
    numbers[0].replace(/^v/, ''),
    Number(numbers[1]),
    Number(numbers[2]),
  ];
  if (major < 1 || (major === 1 && minor < 6)) {
    throw new DaemonError(
      'failed_precondition',
      `containerd ${version} is too old: 1.6, 1.7 and 2.x are supported`,
      { version },
    );
  }
  return {
    ...found,
    version,
    major,
    minor,
    package_name: await packageOf(run, found.binary, limits),
  };
}

async function packageOf(
  run: RunProgram,
  binary: string,
  limits: Parameters<RunProgram>[1],
): Promise<string | undefined> {
  // Where there is no such database the program is missing, which only means "not this one".
  const none = { code: 1, stdout: '', stderr: '' };
  const dpkg = await run(['dpkg', '-S', binary], limits).catch(() => none);
  if (dpkg.code === 0) return /^([^:,\s]+)/.exec(dpkg.stdout)?.[1];
  const rpm = await run(['rpm', '-qf', '--queryformat', '%{NAME}', binary], limits).catch(
    () => none,
  );
  return rpm.code === 0 ? rpm.stdout.trim() : undefined;
}

function running(files: HostFiles): ContainerdInstall[] {
  const here = files.link('/proc/self/ns/pid');
  const found: ContainerdInstall[] = [];
  for (const name of files.list('/proc')) {
    if (!/^\d+$/.test(name) || procText(files, name, 'comm').trim() !== 'containerd') continue;
    const namespace = files.link(`/proc/${name}/ns/pid`);
    if (here !== undefined && namespace !== undefined && namespace !== here) continue;
    const argv = procText(files, name, 'cmdline').split('\0');
    const binary = (files.link(`/proc/${name}/exe`) ?? argv[0] ?? '').replace(/ \(deleted\)$/, '');
    if (!binary.startsWith('/')) continue;
    const parent = /^PPid:\s*(\d+)/m.exec(procText(files, name, 'status'))?.[1] ?? '0';
    const unit = /^(?:0:|\d+:name=systemd):.*\/([^/\n]+\.service)$/m.exec(
      procText(files, name, 'cgroup'),
    )?.[1];
    const pid = Number(name);
    found.push(
      install({ files, argv, binary, unit, pid, parent: procText(files, parent, 'comm').trim() }),
    );
  }
  return found;
}

async function fromUnit({ files, run }: Modules, signal: AbortSignal) {
  if (!files.exists('/run/systemd/system')) return undefined;
  const shown = await run(['systemctl', 'show', '--property=LoadState,ExecStart', UNIT], {
    signal,
    deadline_ms: ASK_DEADLINE_MS,
  });
  if (!/^LoadState=loaded$/m.test(shown.stdout)) return undefined;
  const command = /^ExecStart=\{.*?argv\[\]=(.*?) ; /m.exec(shown.stdout)?.[1] ?? '';
  const argv = command.split(' ');
  const [binary = ''] = argv;
  if (!files.exists(binary)) return undefined;
  return install({ files, argv, binary, unit: UNIT, pid: undefined, parent: '' });
}

function install(given: {
  files: HostFiles;
  argv: readonly string[];
  binary: string;
  unit: string | undefined;
  pid: number | undefined;
  parent: string;
}): ContainerdInstall {
  const { files, argv, binary, unit, pid, parent } = given;
  const config_file = posix.resolve('/', flagOf(argv, 'config', 'c') ?? CONFIG_FILE);
  return {
    binary,
    config_file,
    root: flagOf(argv, 'root'),
    socket: flagOf(argv, 'address', 'a'),
    unit,
    pid,
    distribution: distributionOf({ binary, config_file, parent, unit, files }),
  };
}

/** The value of a flag in each spelling that containerd takes: `--x V`, `--x=V`, `-x V`, `-x=V`. */
function flagOf(argv: readonly string[], ...names: readonly string[]): string | undefined {
  for (const [i, word] of argv.entries()) {
    const [, name = '', value] = /^--?([a-z-]+)(?:=(.*))?$/.exec(word) ?? [];
    if (names.includes(name)) return value ?? argv[i + 1];
  }
  return undefined;
}

function procText(files: HostFiles, pid: string, name: string): string {
  try {
    return files.text(`/proc/${pid}/${name}`) ?? '';
  } catch {
    // Processes end while they are looked at, and some belong to others.
    return '';
  }
}
