import { type Command, Option } from 'commander';
import type { SetupCommandOptions } from './setup-command.ts';
import type { TeardownCommandOptions } from './teardown-command.ts';
import type { WiringCommandModules } from './wiring-command.ts';

/** Adds `layerswarm setup` to the program. `outcome` takes the exit code. */
export function addSetup(
  program: Command,
  modules: WiringCommandModules,
  outcome: { code: number },
  config_file: string,
): void {
  program
    .command('setup')
    .description('wire layerswarm into the containerd of this host')
    .addOption(
      new Option('--door <door>', 'how containerd reaches us')
        .choices(['content'])
        .default('content'),
    )
    .option('--join <address...>', 'hosts of the swarm to look for: host:port or multiaddrs')
    .option('--cluster-key <file>', 'the cluster key of the swarm; without one a new key is made')
    .option('--containerd-config <file>', 'which containerd, where there are several')
    .option('--dry-run', 'show what would be done and change nothing')
    .option(
      '--restart-containerd',
      'restart containerd, check it by real calls, take everything back on failure',
    )
    .option('--json', 'one object: outcome, actions, files, warnings, commands')
    .option('--yes', 'do not ask')
    .option('--config <file>', "layerswarm's own configuration file", config_file)
    .addOption(new Option('--root <dir>', 'a tree that stands in for this host').hideHelp())
    .addHelpText(
      'after',
      '\nExit codes: 0 done, or nothing to do; 66 no containerd here; 77 not root; 78 a configuration file is wrong; 80 something stands in the way, the sentence says what; 81 containerd belongs to k3s, RKE2, Docker or another that writes its configuration: what to do is printed.\n',
    )
    .action(async (options: SetupCommandOptions) => {
      const { runSetup } = await import('./setup-command.ts');
      outcome.code = await runSetup(modules, options);
    });
}

/** Adds `layerswarm teardown` to the program. `outcome` takes the exit code. */
export function addTeardown(
  program: Command,
  modules: WiringCommandModules,
  outcome: { code: number },
  config_file: string,
): void {
  program
    .command('teardown')
    .description('give containerd its own content store back; all images stay')
    .option('--containerd-config <file>', 'which containerd, where there are several')
    .option('--dry-run', 'show what would be done and change nothing')
    .option(
      '--restart-containerd',
      'restart containerd, check it by real calls, then stop layerswarm',
    )
    .option('--check', 'only tell whether containerd is wired: 0 no, 1 yes')
    .option('--json', 'one object: outcome, actions, files, warnings, commands')
    .option('--yes', 'do not ask')
    .option('--config <file>', "layerswarm's own configuration file", config_file)
    .addOption(new Option('--root <dir>', 'a tree that stands in for this host').hideHelp())
    .addHelpText(
      'after',
      '\nExit codes: 0 done, or nothing to do; 77 not root; 78 a configuration file is wrong; 80 containerd would be left without a content store, or something else stands in the way. With --check: 0 not wired, 1 wired.\n',
    )
    .action(async (options: TeardownCommandOptions) => {
      const { runCheck, runTeardown } = await import('./teardown-command.ts');
      const run = options.check === true ? runCheck : runTeardown;
      outcome.code = await run(modules, options);
    });
}
