import type { Command } from 'commander';
import type { Clock } from '../base/clock.ts';
import type { DoctorOptions, DoctorWorld } from './doctor-command.ts';
import type { Output } from './output.ts';

type Modules = {
  readonly output: Output;
  readonly clock: Clock;
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly doctor: () => Promise<DoctorWorld>;
  readonly interrupted: () => AbortSignal;
};

/** Adds `layerswarm doctor`; the checks are loaded only when it runs. */
export function addDoctor(
  program: Command,
  modules: Modules,
  outcome: { code: number },
  config_file: string,
): void {
  program
    .command('doctor')
    .description('check this host by real calls: each finding comes with what mends it')
    .option('--json', 'as JSON: the findings with their facts, and a summary')
    .option('--config <file>', 'configuration file', config_file)
    .option('--containerd-config <file>', "containerd's configuration file, where several run")
    .option(
      '--read-all',
      'read every blob to its last byte and compare it with its digest: takes as long as the disk takes',
    )
    .option('--only <checks>', 'only these checks, separated by commas')
    .addHelpText(
      'after',
      '\nChecks: socket, service, degraded, config, wiring, images, blobs, registries, swarm-port, cluster-key, disk, decompressors, socket-buffers, peers.\nExit codes: 0 all well, notes at most; 1 warnings; 2 failures.\n',
    )
    .action(async (options: DoctorOptions) => {
      const { runDoctorCommand } = await import('./doctor-command.ts');
      const { output, clock, environment } = modules;
      const world = await modules.doctor();
      outcome.code = await runDoctorCommand(
        { output, clock, environment, world, packaged_config: config_file },
        options,
        modules.interrupted(),
      );
    });
}
