import { DaemonError, hasCode } from '../base/errors.ts';
import { loadConfig } from '../config/load.ts';
import { BackupManifest, type Manifest } from './backup-manifest.ts';
import { type DumpFacts, dumpFacts } from './config-dump.ts';
import {
  BUILTIN_CONTENT,
  CONF_D,
  DROP_IN,
  parseContainerd,
  PROXY_NAME,
  stringList,
} from './containerd-config.ts';
import {
  chooseContainerd,
  type ContainerdIdentity,
  findContainerds,
  identifyContainerd,
} from './containerd-install.ts';
import type { ContainerdRestart, LiveStore } from './containerd-restart.ts';
import { applyEdits, concernsContainerd, type FileEdit } from './file-edit.ts';
import type { ImageSnapshot } from './image-check.ts';
import { planTeardown, requireBuiltin, type TeardownPlan } from './teardown-plan.ts';
import { type Candidate, dumpCandidate, filesWhere } from './wiring-check.ts';
import {
  requireRestart,
  restartOf,
  teardownCommands,
  unitOf,
  type WiringModules,
} from './wiring-host.ts';

/** Where containerd's configuration is when neither setup's record nor a running containerd says so. */
const CONFIG_FILE = '/etc/containerd/config.toml';

export type TeardownOptions = {
  readonly config_file: string;
  readonly containerd_config: string | undefined;
};

/** What teardown would do here. Nothing has been changed. */
export type TeardownProposal = {
  /** Undefined when containerd was removed meanwhile: then only files are put back. */
  readonly containerd: ContainerdIdentity | undefined;
  readonly dump: DumpFacts | undefined;
  readonly socket_path: string;
  readonly manifest: Manifest | undefined;
  readonly plan: TeardownPlan;
  readonly live: LiveStore;
  readonly changes: boolean;
  readonly restart_due: boolean;
  readonly commands: readonly string[];
};

/** What still leads from containerd to layerswarm: its configuration, or only the process that read it. */
export type Wiring = 'files' | 'running' | 'none';

/** Tells whether layerswarm may go; for package scripts. Never rejects for a containerd that cannot be asked. */
export async function hostWiring(
  modules: WiringModules,
  options: TeardownOptions,
  signal: AbortSignal,
): Promise<Wiring> {
  const { files } = modules;
  if (files.exists(DROP_IN)) return 'files';
  const manifest = new BackupManifest(files).load();
  const file = options.containerd_config ?? manifest?.containerd.config_file ?? CONFIG_FILE;
  const candidate = { main: files.text(file), drop_ins: {} };
  const names = ({ proxy_plugins }: { readonly proxy_plugins?: unknown }) =>
    typeof proxy_plugins === 'object' && proxy_plugins !== null && PROXY_NAME in proxy_plugins;
  if (filesWhere(files, file, candidate, names).length > 0) return 'files';
  try {
    const containerd = await meant(modules, options, manifest, signal);
    if (containerd?.pid === undefined) return 'none';
    const dump = dumpFacts(await dumpCandidate(modules, containerd, candidate, signal));
    const live = await restartOf(modules, containerd, dump, '')?.liveStore(signal);
    return live === 'layerswarm' ? 'running' : 'none';
  } catch {
    // The files are the promise; the process can only be asked where it answers.
    return 'none';
  }
}

/**
 * Looks at this host and says what teardown would do. Refuses with `failed_precondition` when containerd would be left
 * without a content store.
 */
export async function proposeTeardown(
  modules: WiringModules,
  options: TeardownOptions,
  signal: AbortSignal,
): Promise<TeardownProposal> {
  const { files } = modules;
  const manifests = new BackupManifest(files);
  const manifest = manifests.load();
  const containerd = await meant(modules, options, manifest, signal);
  const config_file = containerd?.config_file ?? manifest?.containerd.config_file ?? CONFIG_FILE;
  const socket_path = socketOf(modules, options.config_file);
  const main = files.read(config_file);
  const plan = planTeardown({
    config_file,
    main,
    drop_in: files.read(DROP_IN),
    other_drop_ins: files.list(CONF_D).filter((n) => n.endsWith('.toml') && !DROP_IN.endsWith(n)),
    touched: (manifest?.files ?? []).map((entry) => ({
      entry,
      original: manifests.original(entry),
      now: files.read(entry.path),
    })),
  });
  // Unwire first: whatever happens between two files, containerd is never told of a store that is being taken away.
  const edits = [...plan.edits].sort((a, b) => rank(a) - rank(b));
  const dump = await tryOut(
    modules,
    { containerd, config_file, edits, main: main?.bytes.toString('utf8') },
    signal,
  );
  const restart = containerd && dump && restartOf(modules, containerd, dump, socket_path);
  const live =
    containerd?.pid === undefined
      ? 'none'
      : await restart?.liveStore(signal).catch(() => 'none' as const);
  return {
    containerd,
    dump,
    socket_path,
    manifest,
    plan: { ...plan, edits },
    live: live ?? 'none',
    changes: edits.length > 0 || manifests.exists(),
    restart_due: edits.some(concernsContainerd) || live === 'layerswarm' || live === 'other',
    commands: teardownCommands(files, unitOf(containerd ?? { unit: undefined })),
  };
}

/**
 * Does what was proposed. With `restart` containerd goes back to its own store first, is checked by real calls, and only
 * then our daemon stops. A failure puts everything back and says so. Returns sentences about what was done.
 */
export async function applyTeardown(
  modules: WiringModules,
  proposal: TeardownProposal,
  options: { readonly restart: boolean },
  signal: AbortSignal,
): Promise<readonly string[]> {
  const { files } = modules;
  const { containerd, dump, manifest, plan, restart_due, socket_path } = proposal;
  let restart: ContainerdRestart | undefined;
  if (options.restart && restart_due && containerd !== undefined && dump !== undefined) {
    const known = restartOf(modules, containerd, dump, socket_path);
    restart = requireRestart(files, containerd, known);
  }
  const manifests = new BackupManifest(files);
  if (manifest !== undefined) manifests.save({ ...manifest, stage: 'undoing' });
  const rollback = applyEdits(files, plan.edits);
  const done = plan.edits.length > 0 ? ['files are as they were before setup'] : [];
  if (restart !== undefined) {
    await restartOrUndo(restart, signal, () => {
      rollback();
      if (manifest !== undefined) manifests.save(manifest);
    });
    done.push(
      `${unitOf(containerd ?? { unit: undefined })} restarted: its content store is its own again, every image can be read; layerswarm is stopped`,
    );
  }
  for (const path of (manifest?.directories ?? []).toReversed()) files.removeEmptyDirectory(path);
  manifests.clear();
  return done;
}

async function restartOrUndo(
  restart: ContainerdRestart,
  signal: AbortSignal,
  undo: () => void,
): Promise<void> {
  let before: ImageSnapshot = new Map();
  try {
    before = await restart.images(signal).catch(() => new Map<string, string>());
    await restart.reload(signal);
    await restart.restartContainerd(signal);
    await restart.verify('builtin', before, signal);
  } catch (cause) {
    // Not on the caller's signal: an interrupt must not leave half of it.
    const own = new AbortController().signal;
    undo();
    let back = 'Everything is wired as it was.';
    try {
      await restart.reload(own);
      await restart.restartBoth(own);
      await restart.verify('layerswarm', before, own);
    } catch (error) {
      back = `The files are wired as they were, but containerd needs a look: ${error instanceof Error ? error.message : String(error)}.`;
    }
    const known = cause instanceof DaemonError ? cause : undefined;
    const what = known?.message ?? String(cause);
    throw new DaemonError(known?.code ?? 'internal', `${what}. ${back}`, {}, { cause });
  }
  await restart.stopDaemon(signal);
}

/** The containerd that setup wired; undefined when there is none any more. */
async function meant(
  modules: WiringModules,
  { containerd_config }: TeardownOptions,
  manifest: Manifest | undefined,
  signal: AbortSignal,
): Promise<ContainerdIdentity | undefined> {
  const found = await findContainerds(modules, signal);
  const plain = found.filter((c) => c.distribution === 'plain');
  const recorded = manifest?.containerd.config_file;
  const wanted =
    containerd_config ?? (plain.some((c) => c.config_file === recorded) ? recorded : undefined);
  try {
    return await identifyContainerd(modules, chooseContainerd(plain, wanted), signal);
  } catch (error) {
    // Its files are put back all the same; nothing runs that could be asked.
    if (hasCode(error, 'not_found') && containerd_config === undefined) return undefined;
    throw error;
  }
}

function socketOf({ files }: WiringModules, config_file: string): string {
  try {
    return loadConfig(files.at(config_file), {}, { optional: true }).content.socket_path;
  } catch (error) {
    // A broken configuration of ours must not keep anybody from getting rid of us.
    if (!hasCode(error, 'config_invalid')) throw error;
    return '/run/layerswarm/layerswarm.sock';
  }
}

/** What containerd would make of the result; refused where that is no content store at all. */
async function tryOut(
  modules: WiringModules,
  facts: {
    readonly containerd: ContainerdIdentity | undefined;
    readonly config_file: string;
    readonly edits: readonly FileEdit[];
    readonly main: string | undefined;
  },
  signal: AbortSignal,
): Promise<DumpFacts | undefined> {
  const { containerd, config_file, edits, main } = facts;
  const result = (path: string, now: string | undefined): string | undefined => {
    const edit = edits.find((e) => e.path === path);
    return edit === undefined ? now : edit.after?.bytes.toString('utf8');
  };
  const candidate: Candidate = {
    main: result(config_file, main),
    drop_ins: { [DROP_IN]: result(DROP_IN, modules.files.text(DROP_IN)) },
  };
  if (candidate.main !== undefined) parseContainerd(candidate.main, config_file);
  if (containerd === undefined) return undefined;
  const dump = dumpFacts(await dumpCandidate(modules, containerd, candidate, signal));
  requireBuiltin(
    dump,
    filesWhere(modules.files, config_file, candidate, (table) =>
      stringList(table, 'disabled_plugins').includes(BUILTIN_CONTENT),
    ),
  );
  return dump;
}

function rank(edit: FileEdit): number {
  return concernsContainerd(edit) ? 0 : 1;
}
