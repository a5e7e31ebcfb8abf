import { posix } from 'node:path';
import { DaemonError } from '../base/errors.ts';
import { loadConfig } from '../config/load.ts';
import { BackupManifest } from './backup-manifest.ts';
import { type DumpFacts, dumpFacts, isWired, requireSameButWiring } from './config-dump.ts';
import {
  BUILTIN_CONTENT,
  type ContainerdTable,
  DROP_IN,
  parseContainerd,
  stringList,
} from './containerd-config.ts';
import {
  chooseContainerd,
  type ContainerdIdentity,
  findContainerds,
  identifyContainerd,
} from './containerd-install.ts';
import type { LiveStore } from './containerd-restart.ts';
import { concernsContainerd } from './file-edit.ts';
import { type Distribution, managedInstructions } from './managed-containerd.ts';
import { settleOwnConfig } from './own-config.ts';
import { UNIT_OVERRIDE } from './unit-override.ts';
import { type Candidate, dumpCandidate, filesWhere } from './wiring-check.ts';
import { restartOf, setupCommands, type WiringModules } from './wiring-host.ts';
import { planSetup, requireWired, type SetupFacts, type SetupPlan } from './wiring-plan.ts';

/** What the operator asked for. Paths are absolute. */
export type SetupOptions = {
  /** layerswarm's own configuration. */
  readonly config_file: string;
  /** Tells which containerd is meant where there are several. */
  readonly containerd_config: string | undefined;
  readonly join: readonly string[];
  readonly cluster_key: string | undefined;
};

/** What setup would do here. Nothing has been changed. */
export type SetupProposal =
  | {
      readonly kind: 'managed';
      readonly distribution: Distribution;
      readonly containerd_config: string;
      readonly instructions: readonly string[];
    }
  | {
      readonly kind: 'plan';
      readonly containerd: ContainerdIdentity;
      readonly dump: DumpFacts;
      readonly socket_path: string;
      readonly key_path: string;
      /** Where the other hosts reach this one. */
      readonly listen_port: number;
      readonly plan: SetupPlan;
      /** The store of the running containerd; `none` when it does not run or cannot be asked. */
      readonly live: LiveStore;
      /** True when files are to be written or an earlier run was cut short. */
      readonly changes: boolean;
      /** True when containerd has to be restarted for the result to count. */
      readonly restart_due: boolean;
      readonly commands: readonly string[];
    };

/**
 * Looks at this host and says what setup would do. Every file that containerd would read was tried with its own `config
 * dump`: only our wiring differs. Throws what stands in the way, with the file and what to do.
 */
export async function proposeSetup(
  modules: WiringModules,
  options: SetupOptions,
  signal: AbortSignal,
): Promise<SetupProposal> {
  const { files } = modules;
  for (const address of options.join) await modules.checkPeerAddress(address);
  const found = await findContainerds(modules, signal);
  const install = chooseContainerd(found, options.containerd_config);
  const own_now = loadConfig(files.at(options.config_file), {}, { optional: true });
  if (install.distribution !== 'plain') {
    const { distribution, config_file, root } = install;
    const facts = { config_file, root, socket: own_now.content.socket_path };
    const instructions = managedInstructions(distribution, facts);
    return { kind: 'managed', distribution, containerd_config: config_file, instructions };
  }
  const containerd = await identifyContainerd(modules, install, signal);
  const main = files.read(containerd.config_file);
  const text = main?.bytes.toString('utf8');
  if (text !== undefined) parseContainerd(text, containerd.config_file);
  const before = await dumpCandidate(modules, containerd, { main: text, drop_ins: {} }, signal);
  const dump = dumpFacts(before);
  const facts = await gather(modules, options, containerd, { dump, main });
  const plan = planSetup(facts);
  const socket_path = facts.own.config.content.socket_path;
  if (plan.wires) await tryOut(modules, facts, plan, { containerd, before, socket_path }, signal);
  const live = await liveStore(modules, containerd, dump, socket_path, signal);
  const unfinished = (new BackupManifest(files).load()?.stage ?? 'applied') !== 'applied';
  const changes = plan.edits.length > 0 || !facts.content_directory_exists || unfinished;
  return {
    kind: 'plan',
    containerd,
    dump,
    socket_path,
    key_path: facts.own.config.swarm.cluster_key_file,
    listen_port: facts.own.config.swarm.listen_port,
    plan,
    live,
    changes,
    restart_due: plan.edits.some(concernsContainerd) || live === 'builtin' || live === 'other',
    commands: setupCommands(files, containerd),
  };
}

async function gather(
  modules: WiringModules,
  options: SetupOptions,
  containerd: ContainerdIdentity,
  read: Pick<SetupFacts, 'dump' | 'main'>,
): Promise<SetupFacts> {
  const { files } = modules;
  const root = containerd.root ?? read.dump.root;
  const own_file = files.read(options.config_file);
  const settled = settleOwnConfig(own_file?.bytes.toString('utf8'), options.config_file, {
    content_directory: posix.join(root, BUILTIN_CONTENT),
    join: options.join,
  });
  const { config } = settled;
  const key_path = config.swarm.cluster_key_file;
  const key = files.read(key_path);
  const { config_file, major, unit } = containerd;
  return {
    ...read,
    containerd: { config_file, major, unit, root },
    drop_in: files.read(DROP_IN),
    unit_override: files.read(UNIT_OVERRIDE),
    own: { path: options.config_file, file: own_file, settled: settled.text, config },
    key,
    new_key: await newKey(modules, options, key === undefined, key_path),
    content_directory_exists: files.exists(config.store.content_directory),
    docker: files.exists('/run/docker.sock'),
  };
}

async function newKey(
  { files, checkClusterKey, generateClusterKey }: WiringModules,
  { cluster_key, join }: SetupOptions,
  missing: boolean,
  key_path: string,
): Promise<SetupFacts['new_key']> {
  if (cluster_key !== undefined) {
    const text = files.text(cluster_key);
    if (text === undefined) {
      throw new DaemonError('not_found', `the cluster key file ${cluster_key} does not exist`, {
        path: cluster_key,
      });
    }
    await checkClusterKey(text, cluster_key);
    return { text, generated: false };
  }
  if (!missing) {
    await checkClusterKey(files.text(key_path) ?? '', key_path);
    return undefined;
  }
  if (join.length > 0) {
    throw new DaemonError(
      'failed_precondition',
      `this host has no cluster key, and a new one would not be that of ${join.join(', ')}. Copy ${key_path} from there and run this again with --cluster-key FILE`,
    );
  }
  return { text: `${await generateClusterKey()}\n`, generated: true };
}

/** Lets containerd itself read the result, and compares it with what it reads now. */
async function tryOut(
  modules: WiringModules,
  facts: SetupFacts,
  plan: SetupPlan,
  now: { containerd: ContainerdIdentity; before: ContainerdTable; socket_path: string },
  signal: AbortSignal,
): Promise<void> {
  const { containerd, before, socket_path } = now;
  const after = (path: string) => plan.edits.find((e) => e.path === path)?.after ?? undefined;
  const main = after(containerd.config_file) ?? facts.main;
  const drop_in = after(DROP_IN) ?? facts.drop_in;
  const candidate: Candidate = {
    main: main?.bytes.toString('utf8'),
    drop_ins: { [DROP_IN]: drop_in?.bytes.toString('utf8') },
  };
  const dump = await dumpCandidate(modules, containerd, candidate, signal);
  requireSameButWiring(before, dump, containerd.config_file);
  requireWired(dumpFacts(dump), socket_path, (holds) =>
    filesWhere(modules.files, containerd.config_file, candidate, (table) =>
      holds === 'required'
        ? stringList(table, 'required_plugins').includes(BUILTIN_CONTENT)
        : dumpFacts(table).content_proxies.length > 0 && !isWired(dumpFacts(table), socket_path),
    ),
  );
}

async function liveStore(
  modules: WiringModules,
  containerd: ContainerdIdentity,
  dump: DumpFacts,
  socket_path: string,
  signal: AbortSignal,
): Promise<LiveStore> {
  if (containerd.pid === undefined) return 'none';
  const restart = restartOf(modules, containerd, dump, socket_path);
  // Only for advice: a containerd that does not answer is no reason to refuse.
  return (await restart?.liveStore(signal).catch(() => 'none' as const)) ?? 'none';
}
