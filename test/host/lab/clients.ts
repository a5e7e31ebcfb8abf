// The clients people use, as they use them: nerdctl and crictl on a lab host, against one of its containerds.
import { writeFile } from 'node:fs/promises';
import { delimiter, join } from 'node:path';
import type { LabContainerd } from './containerd.ts';
import type { DebianTools } from './debian-packages.ts';
import { builtClient } from './go-programs.ts';
import type { CommandResult } from './run-command.ts';

/** Pull, unpack and run of the tests' images take seconds; this one hangs. */
const DEADLINE_MS = 60_000;

/** nerdctl of one containerd; its containers have no network, because there is no CNI plugin here. */
export class Nerdctl {
  readonly #containerd: LabContainerd;
  readonly #program: string;
  readonly #tools: DebianTools;

  private constructor(containerd: LabContainerd, tools: DebianTools, program: string) {
    this.#containerd = containerd;
    this.#tools = tools;
    this.#program = program;
  }

  /** Builds the program when it is not in the cache. */
  static async of(containerd: LabContainerd, tools: DebianTools): Promise<Nerdctl> {
    return new Nerdctl(containerd, tools, await builtClient('nerdctl'));
  }

  /** Runs a command, however it ends. */
  async command(args: readonly string[]): Promise<CommandResult> {
    const { host, socket, dir, package: programs } = this.#containerd;
    const own = ['--data-root', join(host.dir, 'nerdctl'), '--hosts-dir', join(dir, 'certs')];
    const cni = ['--cni-path', join(dir, 'cnibin'), '--cni-netconfpath', join(dir, 'cninet')];
    const common = ['--address', socket, '--cgroup-manager', 'cgroupfs', ...own, ...cni];
    const path = [programs.bin_dir, process.env['PATH'] ?? ''].join(delimiter);
    return host.tryRun([this.#program, ...common, ...args], {
      deadline_ms: DEADLINE_MS,
      // The machine's own configuration of nerdctl is none of the tests'.
      env: { PATH: path, NERDCTL_TOML: join(dir, 'no-nerdctl.toml') },
    });
  }

  /** `nerdctl run` with what every container here needs. */
  async run(args: readonly string[]): Promise<CommandResult> {
    return this.command(['run', '--net', 'none', '--runtime', this.#tools.runc, ...args]);
  }
}

/** Runs `crictl` against a containerd, however it ends. Builds the program when it is not in the cache. */
export async function crictl(
  { host, dir, socket }: LabContainerd,
  args: readonly string[],
): Promise<CommandResult> {
  const config = join(dir, 'crictl.yaml');
  await writeFile(config, '');
  const endpoint = ['--config', config, '--runtime-endpoint', `unix://${socket}`];
  const argv = [await builtClient('crictl'), ...endpoint, ...args];
  return host.tryRun(argv, { deadline_ms: DEADLINE_MS });
}
