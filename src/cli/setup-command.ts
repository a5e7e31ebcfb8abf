import { resolve } from 'node:path';
import { applySetup } from '../host/setup-apply.ts';
import { proposeSetup, type SetupProposal } from '../host/setup.ts';
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
export type SetupCommandOptions = WiringCommandOptions & {
  readonly door: 'content';
  readonly join?: readonly string[];
  readonly clusterKey?: string;
};

type Plan = Extract<SetupProposal, { kind: 'plan' }>;

/** `layerswarm setup`: proposes, shows, asks, does. Resolves to the exit code. */
export async function runSetup(
  modules: WiringCommandModules,
  options: SetupCommandOptions,
): Promise<number> {
  const { output } = modules;
  requireRoot(modules, options);
  const signal = modules.interrupted();
  const wiring = await modules.wiring(options.root ?? '');
  const proposal = await proposeSetup(
    wiring,
    {
      config_file: resolve(options.config),
      containerd_config: options.containerdConfig && resolve(options.containerdConfig),
      join: options.join ?? [],
      cluster_key: options.clusterKey && resolve(options.clusterKey),
    },
    signal,
  );
  const json = options.json === true;
  if (proposal.kind === 'managed') {
    if (json) output.out(`${JSON.stringify(managedReport(proposal))}\n`);
    else
      output.out(
        `setup changes nothing here, because this containerd is not the operator's own.\n${bullets('', proposal.instructions)}`,
      );
    return STATUS.unimplemented.exit;
  }
  const restart = options.restartContainerd === true;
  const due = proposal.changes || (restart && proposal.restart_due);
  if (!json) output.out(describe(proposal, due));
  const dry_run = options.dryRun === true;
  let actions: readonly string[] = [];
  if (due && !dry_run) {
    if (!(await agreed(modules, options, question(proposal, restart), signal))) {
      output.out('nothing was changed\n');
      return STATUS.cancelled.exit;
    }
    actions = await applySetup(wiring, proposal, { restart }, signal);
  }
  const result: WiringReport['outcome'] = !due ? 'nothing_to_do' : dry_run ? 'dry_run' : 'done';
  const open = proposal.restart_due && !(restart && result === 'done');
  const report = reportOf(proposal, { result, actions, open });
  output.out(json ? `${JSON.stringify(report)}\n` : conclude(proposal, report));
  return 0;
}

function describe({ containerd, plan }: Plan, due: boolean): string {
  const { version, package_name, config_file, unit, binary } = containerd;
  const from = package_name === undefined ? binary : `package ${package_name}`;
  const head = `containerd ${version} (${from}, ${unit ?? 'not run by systemd'}), configuration ${config_file}\n`;
  if (!due) return `${head}${bullets('note: ', plan.notes)}`;
  return [
    head,
    ...plan.edits.map((edit) => `\n${renderEdit(edit)}`),
    '\n',
    bullets('note: ', plan.notes),
    bullets('warning: ', plan.warnings),
  ].join('');
}

function question({ changes, plan }: Plan, restart: boolean): string {
  const files = changes ? `Write ${plan.edits.length} files` : '';
  return [files, restart ? 'restart containerd' : '']
    .filter((part) => part !== '')
    .join(' and ')
    .concat('?');
}

function reportOf(
  { containerd, plan, commands }: Plan,
  run: { result: WiringReport['outcome']; actions: readonly string[]; open: boolean },
): WiringReport {
  const { version, config_file } = containerd;
  return {
    command: 'setup',
    outcome: run.result,
    containerd: { version, config_file },
    actions: [...run.actions, ...plan.notes],
    files: plan.edits.map(fileReport),
    warnings: plan.warnings,
    commands: run.open ? commands : [],
  };
}

function conclude(proposal: Plan, { outcome, actions, commands }: WiringReport): string {
  const { plan, key_path, listen_port } = proposal;
  const lines: string[] = [];
  if (outcome === 'nothing_to_do') lines.push('nothing to do');
  if (outcome === 'dry_run') lines.push('dry run: nothing was changed');
  if (outcome === 'done') lines.push(...actions.filter((a) => !plan.notes.includes(a)));
  if (outcome === 'done' && plan.edits.some((e) => e.kind === 'generated-key')) {
    lines.push(
      `a new cluster key is in ${key_path}; every host of the swarm needs the same one. For each of them:`,
      `  scp ${key_path} root@HOST:/root/layerswarm.key`,
      `  ssh root@HOST layerswarm setup --cluster-key /root/layerswarm.key --join THIS-HOST:${listen_port} --yes`,
    );
  }
  if (commands.length > 0) {
    lines.push(
      'containerd reads its new configuration when it starts; running containers go on. When it suits you:',
    );
    lines.push(...commands.map((c) => `  ${c}`));
  }
  return bullets('', lines);
}

function managedReport(
  proposal: Extract<SetupProposal, { kind: 'managed' }>,
): WiringReport & { distribution: string } {
  return {
    command: 'setup',
    outcome: 'managed',
    distribution: proposal.distribution,
    containerd: null,
    actions: [],
    files: [],
    warnings: [],
    commands: proposal.instructions,
  };
}
