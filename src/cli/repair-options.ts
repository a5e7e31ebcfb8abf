import { resolve } from 'node:path';
import type { Command } from 'commander';
import type { RepairCommandModules, RepairOptions, RepairWorld } from './repair-command.ts';

type Modules = Omit<RepairCommandModules, 'world' | 'socket_path'> & {
  readonly world: () => Promise<RepairWorld>;
  readonly configuredSocket: (config_file: string) => string;
};

/** Adds `layerswarm repair`. `outcome` takes the exit code. */
export function addRepair(
  program: Command,
  modules: Modules,
  outcome: { code: number },
  config_file: string,
): void {
  program
    .command('repair')
    .description(
      'make containerd forget blobs that are gone or wrong on disk: the next pull fetches them',
    )
    .argument(
      '[digest...]',
      'only these blobs, read to the last byte first (default: what the daemon has lost)',
    )
    .option('--namespace <name...>', 'only these namespaces of containerd (default: all)')
    .option('--dry-run', 'show what would be done and change nothing')
    .option('--yes', 'do not ask')
    .option('--json', 'one object: outcome, entries, notes, commands')
    .option('--containerd-address <path>', "containerd's socket (default: from its configuration)")
    .option('--containerd-config <file>', 'which containerd, where there are several')
    .option('--socket <path>', "the daemon's socket (default: from the configuration)")
    .option('--config <file>', "layerswarm's own configuration file", config_file)
    .addHelpText(
      'after',
      '\nExit codes: 0 done, or nothing to do; 66 no such namespace; 69 the daemon or containerd does not answer; 77 no permission; 80 containerd uses another content store, or there is nobody to ask.\n',
    )
    .action(
      async (digests: string[], options: RepairOptions & { socket?: string; config: string }) => {
        const { runRepair } = await import('./repair-command.ts');
        const { configuredSocket, world, ...rest } = modules;
        const socket_path = options.socket ?? configuredSocket(options.config);
        const containerdConfig = options.containerdConfig && resolve(options.containerdConfig);
        outcome.code = await runRepair({ ...rest, world: await world(), socket_path }, digests, {
          ...options,
          ...(containerdConfig !== undefined && { containerdConfig }),
        });
      },
    );
}
