import { resolve } from 'node:path';
import { Command, CommanderError } from 'commander';
import type { Clock } from '../base/clock.ts';
import { DaemonError, isAbort } from '../base/errors.ts';
import { loadConfig } from '../config/load.ts';
import { renderConfig } from '../config/reference.ts';
import { loadServiceConfig, type ServiceConfig } from '../config/service-config.ts';
import type { StatusResponse__Output } from '../gen/layerswarm/control/v1/StatusResponse.ts';
import { STATUS } from '../rpc/status.ts';
import type { DoctorWorld } from './doctor-command.ts';
import { addDoctor } from './doctor-options.ts';
import { HostFiles } from '../host/host-files.ts';
import { runKeygen } from './keygen-command.ts';
import { runMigrate } from './migrate-command.ts';
import type { Output } from './output.ts';
import type { RegistryWorld } from './registry-command.ts';
import { addRegistry } from './registry-options.ts';
import type { RepairWorld } from './repair-command.ts';
import { addRepair } from './repair-options.ts';
import { errorAsJson, runStatus } from './status-command.ts';
import type { WiringCommandModules } from './wiring-command.ts';
import { addSetup, addTeardown } from './wiring-options.ts';

/** Where the packages put the configuration. */
const CONFIG_FILE = '/etc/layerswarm/config.toml';

/** What the commands need of the world; main.ts gives the real one. */
export type CommandModules = {
  readonly output: Output;
  readonly clock: Clock;
  readonly version: string;
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** Runs the daemon until it is told to stop; resolves to the exit code. */
  readonly runDaemon: (config: ServiceConfig) => Promise<number>;
  readonly generateClusterKey: () => Promise<string>;
  readonly fetchStatus: (
    socket_path: string,
    signal: AbortSignal,
  ) => Promise<StatusResponse__Output>;
  /** Aborts when the user interrupts a command (not the daemon, which has signals of its own). */
  readonly interrupted: () => AbortSignal;
  /** The host that `setup` and `teardown` change. */
  readonly host: Pick<WiringCommandModules, 'wiring' | 'confirm' | 'is_root'>;
  /** The host that `doctor` looks at. */
  readonly doctor: () => Promise<DoctorWorld>;
  /** The host that `repair` mends. */
  readonly repair: () => Promise<RepairWorld>;
  /** The registries that `registry check` asks, and the containerd that knows where images come from. */
  readonly registry: () => Promise<RegistryWorld>;
};

type Outcome = { code: number };

/**
 * Runs one command line (without the program's own name) and resolves to the exit code. Every failure ends as one
 * sentence on stderr, or as one line of JSON where `--json` was asked for. Never rejects.
 */
export async function runCommand(
  modules: CommandModules,
  args: readonly string[],
): Promise<number> {
  const outcome: Outcome = { code: 0 };
  try {
    await buildProgram(modules, outcome).parseAsync([...args], { from: 'user' });
    return outcome.code;
  } catch (error) {
    return explain(modules.output, error, args.includes('--json'));
  }
}

function explain(output: Output, error: unknown, json: boolean): number {
  if (error instanceof CommanderError) {
    // Commander has written its sentence already; help and version are no failures.
    return error.exitCode === 0 ? 0 : STATUS.invalid_argument.exit;
  }
  const known =
    error instanceof DaemonError
      ? error
      : new DaemonError(
          isAbort(error) ? 'cancelled' : 'internal',
          isAbort(error) ? 'interrupted' : `unforeseen failure: ${String(error)}`,
          {},
          { cause: error },
        );
  output.err(json ? `${errorAsJson(known)}\n` : `layerswarm: ${known.message}\n`);
  return STATUS[known.code].exit;
}

/** The command line; exported for the shell completions, which are made from it. */
export function buildProgram(modules: CommandModules, outcome: Outcome): Command {
  const { output } = modules;
  const program = new Command('layerswarm')
    .description('Image layers for containerd from the other hosts, verified piece by piece.')
    .version(modules.version)
    .exitOverride()
    .showSuggestionAfterError()
    .configureOutput({
      writeOut: (text) => output.out(text),
      writeErr: (text) => output.err(text.replace(/^error: /, 'layerswarm: ')),
    })
    .addHelpText(
      'after',
      '\nExit codes: 0 done; 64 wrong usage, 69 no daemon answers, 70 a defect, 77 no permission, 78 wrong configuration.\n',
    );
  addDaemon(program, modules, outcome);
  addStatus(program, modules, outcome);
  addConfig(program, modules);
  const wiring = { output, interrupted: modules.interrupted, ...modules.host };
  addSetup(program, wiring, outcome, CONFIG_FILE);
  addTeardown(program, wiring, outcome, CONFIG_FILE);
  addDoctor(program, modules, outcome, CONFIG_FILE);
  addRepair(program, repairModules(modules), outcome, CONFIG_FILE);
  const configured = (file: string) => inForce(modules, file).config.registry;
  addRegistry(program, { ...modules, configured }, outcome, CONFIG_FILE);
  program
    .command('keygen')
    .description('make a cluster key; every host of a swarm has the same')
    .option('--out <file>', 'write it to this file (mode 0600) instead of stdout')
    .option('--force', 'replace an existing file')
    .action(async (options: { out?: string; force?: boolean }) => {
      const key = await modules.generateClusterKey();
      outcome.code = runKeygen({ output, generateClusterKey: () => key }, options);
    });
  return program;
}

function repairModules(modules: CommandModules): Parameters<typeof addRepair>[1] {
  const { output, clock, interrupted, repair } = modules;
  return {
    ...{ output, clock, interrupted },
    // Looked up when a command runs: the completions are made from a program without a host.
    get confirm() {
      return modules.host.confirm;
    },
    world: repair,
    configuredSocket: (file) => inForce(modules, file).config.content.socket_path,
  };
}

function addDaemon(program: Command, modules: CommandModules, outcome: Outcome): void {
  program
    .command('daemon')
    .description('run the daemon in the foreground')
    .option('--config <file>', 'configuration file', CONFIG_FILE)
    .action(async ({ config }: { config: string }) => {
      outcome.code = await modules.runDaemon(inForce(modules, config));
    });
}

function addStatus(program: Command, modules: CommandModules, outcome: Outcome): void {
  program
    .command('status')
    .description('how the running daemon is doing')
    .option('--json', 'as JSON, with the field names of control.proto')
    .option('--watch', 'again every second, until interrupted')
    .option('--socket <path>', "the daemon's socket (default: from the configuration)")
    .option('--config <file>', 'configuration file', CONFIG_FILE)
    .addHelpText(
      'after',
      '\nExit codes: 0 connected; 1 alone or degraded; 2 starting or draining; 69 no daemon answers.\n',
    )
    .action(async (options: StatusOptions) => {
      const socket = options.socket ?? inForce(modules, options.config).config.content.socket_path;
      const fetchStatus = (signal: AbortSignal) => modules.fetchStatus(socket, signal);
      const { output, clock } = modules;
      outcome.code = await runStatus(
        { output, clock, fetchStatus },
        options,
        modules.interrupted(),
      );
    });
}

type StatusOptions = { json?: boolean; watch?: boolean; socket?: string; config: string };

/** What the daemon of this host runs with, also where somebody has broken the file. */
function inForce({ environment }: CommandModules, file: string): ServiceConfig {
  // The packaged default may be missing (every key has a default); a file that was named must be there.
  return loadServiceConfig(file, environment, { optional: file === CONFIG_FILE });
}

function addConfig(program: Command, modules: CommandModules): void {
  const { output, environment } = modules;
  const config = program.command('config').description('the configuration file');
  config
    .command('check')
    .description('check a configuration file; all problems are told at once')
    .argument('[file]', 'configuration file', CONFIG_FILE)
    .action((file: string) => {
      loadConfig(file, environment);
      output.out(`${file}: ok\n`);
    });
  config
    .command('show')
    .description('the effective configuration: the file, the defaults and the environment')
    .option('--config <file>', 'configuration file', CONFIG_FILE)
    .action(({ config: file }: { config: string }) => {
      const optional = file === CONFIG_FILE;
      output.out(renderConfig(loadConfig(file, environment, { optional })));
    });
  config
    .command('migrate')
    .description('rewrite keys that a later version renamed or removed; the old file is kept')
    .argument('[file]', 'configuration file', CONFIG_FILE)
    .option('--dry-run', 'show what would change and write nothing')
    .action((file: string, { dryRun }: { dryRun?: boolean }) => {
      runMigrate({ output, files: new HostFiles() }, resolve(file), { dry_run: dryRun === true });
    });
}
