import { resolve } from 'node:path';
import {
  applyTeardown,
  hostWiring,
  proposeTeardown,
  type TeardownProposal,
} from '../host/teardown.ts';
import { STATUS } from '../rpc/status.ts';
import {
  agreed,
  bullets,
  fileReport,
  renderEdit,
  requireRoot,
  type WiringCommandModules,
  type WiringCommandOptions,
  type WiringReport,
} from './wiring-command.ts';

/** What the command line gave. */
export type TeardownCommandOptions = WiringCommandOptions & { readonly check?: boolean };

/** `layerswarm teardown --check`: 0 = containerd is not wired to layerswarm, 1 = it is. */
export async function runCheck(
  modules: WiringCommandModules,
  options: TeardownCommandOptions,
): Promise<number> {
  const wiring = await modules.wiring(options.root ?? '');
  const found = await hostWiring(wiring, wantedOf(options), modules.interrupted());
  const wired = found !== 'none';
  const text = {
    files:
      'containerd is wired to layerswarm; to undo that: layerswarm teardown --restart-containerd',
    running: 'containerd runs on layerswarm until it is restarted: systemctl restart containerd',
    none: 'containerd is not wired to layerswarm',
  }[found];
  modules.output.out(
    `${options.json === true ? JSON.stringify({ command: 'teardown', wired, wiring: found }) : text}\n`,
  );
  return wired ? 1 : 0;
}

/** `layerswarm teardown`: proposes, shows, asks, does. Resolves to the exit code. */
export async function runTeardown(
  modules: WiringCommandModules,
  options: TeardownCommandOptions,
): Promise<number> {
  const { output } = modules;
  requireRoot(modules, options);
  const signal = modules.interrupted();
  const wiring = await modules.wiring(options.root ?? '');
  const proposal = await proposeTeardown(wiring, wantedOf(options), signal);
  const json = options.json === true;
  const dry_run = options.dryRun === true;
  const restart = options.restartContainerd === true;
  const { plan } = proposal;
  const due = proposal.changes || (restart && proposal.restart_due);
  if (!json && due) {
    output.out(plan.edits.map((edit) => `${renderEdit(edit)}\n`).join(''));
    output.out(bullets('note: ', plan.notes));
  }
  let actions: readonly string[] = [];
  if (due && !dry_run) {
    const question = `Undo setup${restart ? ' and restart containerd' : ''}?`;
    if (!(await agreed(modules, options, question, signal))) {
      output.out('nothing was changed\n');
      return STATUS.cancelled.exit;
    }
    actions = await applyTeardown(wiring, proposal, { restart }, signal);
  }
  const outcome: WiringReport['outcome'] = !due ? 'nothing_to_do' : dry_run ? 'dry_run' : 'done';
  const open = proposal.restart_due && !(restart && outcome === 'done');
  const report = reportOf(proposal, { outcome, actions, open });
  output.out(json ? `${JSON.stringify(report)}\n` : conclude(report, plan.notes));
  return 0;
}

function wantedOf(options: TeardownCommandOptions) {
  return {
    config_file: resolve(options.config),
    containerd_config: options.containerdConfig && resolve(options.containerdConfig),
  };
}

function reportOf(
  { containerd, plan, commands }: TeardownProposal,
  run: { outcome: WiringReport['outcome']; actions: readonly string[]; open: boolean },
): WiringReport {
  return {
    command: 'teardown',
    outcome: run.outcome,
    containerd: containerd
      ? { version: containerd.version, config_file: containerd.config_file }
      : null,
    actions: [...run.actions, ...plan.notes],
    files: plan.edits.map(fileReport),
    warnings: [],
    commands: run.open ? commands : [],
  };
}

function conclude({ outcome, actions, commands }: WiringReport, notes: readonly string[]): string {
  const lines: string[] = [];
  if (outcome === 'nothing_to_do') lines.push('nothing to do');
  if (outcome === 'dry_run') lines.push('dry run: nothing was changed');
  if (outcome === 'done') lines.push(...actions.filter((a) => !notes.includes(a)));
  if (commands.length > 0) {
    lines.push(
      'containerd uses layerswarm until it is restarted; running containers go on. First the one, then the other:',
      ...commands.map((c) => `  ${c}`),
    );
  }
  return bullets('', lines);
}
