import { resolve } from 'node:path';
import type { Command } from 'commander';
import type { Clock } from '../base/clock.ts';
import type { Config } from '../config/schema.ts';
import type { Output } from './output.ts';
import type { RegistryOptions, RegistryWorld } from './registry-command.ts';

type Modules = {
  readonly output: Output;
  readonly clock: Clock;
  readonly registry: () => Promise<RegistryWorld>;
  readonly interrupted: () => AbortSignal;
  readonly configured: (config_file: string) => Config['registry'];
};

/** Adds `layerswarm registry check`. `outcome` takes the exit code. */
export function addRegistry(
  program: Command,
  modules: Modules,
  outcome: { code: number },
  config_file: string,
): void {
  program
    .command('registry')
    .description('the registries images come from')
    .command('check')
    .description(
      'say where an image would be asked for and with which credentials (by name), and make one request with Range',
    )
    .argument('<image>', 'name of an image, or the digest of a manifest that containerd has')
    .option(
      '--platform <platform>',
      "of an image for several: OS/ARCHITECTURE (default: this host's)",
    )
    .option('--json', 'one object, with what failed in it')
    .option('--containerd-config <file>', 'which containerd, where there are several')
    .option('--config <file>', "layerswarm's own configuration file", config_file)
    .addHelpText(
      'after',
      '\nExit codes: 0 it answers; 64 no name of an image; 66 not there; 69 it cannot be reached, or is busy; 75 too late; 76 it breaks the protocol; 77 no access; 78 a file is wrong; 80 no TLS with it.\n',
    )
    .action(async (image: string, options: RegistryOptions & { config: string }) => {
      const { runRegistryCheck } = await import('./registry-command.ts');
      const { output, clock, interrupted, configured } = modules;
      const config = configured(options.config);
      const world = await modules.registry();
      const containerdConfig = options.containerdConfig && resolve(options.containerdConfig);
      outcome.code = await runRegistryCheck(
        { output, clock, world, config },
        image,
        { ...options, ...(containerdConfig !== undefined && { containerdConfig }) },
        interrupted(),
      );
    });
}
