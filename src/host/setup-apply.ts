import { DaemonError } from '../base/errors.ts';
import { BackupManifest, type Manifest } from './backup-manifest.ts';
import type { ContainerdRestart, DaemonUnits } from './containerd-restart.ts';
import { applyEdits } from './file-edit.ts';
import type { ImageSnapshot } from './image-check.ts';
import type { SetupProposal } from './setup.ts';
import {
  hasOurUnits,
  OUR_UNITS_ENABLE,
  requireRestart,
  restartOf,
  unitOf,
  type WiringModules,
} from './wiring-host.ts';

type Plan = Extract<SetupProposal, { kind: 'plan' }>;

/** Longest time for systemd to enable two units, in ms. */
const ENABLE_DEADLINE_MS = 60_000;

/**
 * Does what was proposed: copies first, then the files, then (only with `restart`) our daemon, containerd, and the proof
 * by real calls. A failure takes back what this run changed and says so. Returns sentences about what was done.
 */
export async function applySetup(
  modules: WiringModules,
  proposal: Plan,
  options: { readonly restart: boolean },
  signal: AbortSignal,
): Promise<readonly string[]> {
  const { files } = modules;
  const { containerd, dump, socket_path, restart_due } = proposal;
  const known = restartOf(modules, containerd, dump, socket_path);
  const restart =
    options.restart && restart_due ? requireRestart(files, containerd, known) : undefined;
  const undo = proposal.changes ? write(modules, proposal) : () => undefined;
  const done = proposal.changes ? ['files written, copies of what was there are kept'] : [];
  if (restart === undefined) {
    if (proposal.changes && hasOurUnits(files)) await enable(modules, signal);
    return done;
  }
  await restartOrUndo(restart, undo, signal);
  return [
    ...done,
    `${unitOf(containerd)} restarted: its content store is layerswarm, every image can be read`,
  ];
}

/** Writes everything; the returned function takes it back, the record included. */
function write({ files }: WiringModules, proposal: Plan): () => void {
  const { containerd, plan } = proposal;
  const manifests = new BackupManifest(files);
  const previous = manifests.load();
  const { binary, config_file } = containerd;
  // In the record before they are made: a crash must not leave a directory of ours that nobody knows.
  const missing = plan.directories.flatMap(({ path }) => files.missingDirectories(path));
  const made = [...new Set(missing)];
  const forget = (): void => {
    for (const path of made.toReversed()) files.removeEmptyDirectory(path);
    if (previous === undefined) manifests.clear();
    else manifests.save(previous);
  };
  let manifest: Manifest;
  let rollback: () => void;
  try {
    manifest = manifests.record(previous, plan.edits, made, { binary, config_file });
    for (const { path, mode, parent_mode } of plan.directories) {
      files.makeDirectory(path, mode, parent_mode);
    }
    rollback = applyEdits(files, plan.edits);
  } catch (error) {
    forget();
    throw error;
  }
  manifests.save({ ...manifest, stage: 'applied' });
  return () => {
    rollback();
    forget();
  };
}

/** A reboot before the restart must find our store ready for the containerd that needs it. */
async function enable({ run }: WiringModules, signal: AbortSignal): Promise<void> {
  const limits = { signal, deadline_ms: ENABLE_DEADLINE_MS };
  for (const args of [['daemon-reload'], OUR_UNITS_ENABLE]) {
    const { code, stderr } = await run(['systemctl', ...args], limits);
    if (code === 0) continue;
    throw new DaemonError(
      'unavailable',
      `the files are written, but systemctl ${args.join(' ')} failed: ${stderr.trim().split('\n')[0] ?? ''}. Mend that before containerd is restarted, or run layerswarm teardown`,
    );
  }
}

async function restartOrUndo(
  restart: ContainerdRestart,
  undo: () => void,
  signal: AbortSignal,
): Promise<void> {
  let before: ImageSnapshot = new Map();
  let restarted = false;
  const units = await restart.daemonUnits(signal);
  try {
    // A containerd that is down has no images to compare; its start will tell.
    before = await restart.images(signal).catch(() => new Map<string, string>());
    await restart.reload(signal);
    await restart.startDaemon(signal);
    restarted = true;
    await restart.restartBoth(signal);
    await restart.verify('layerswarm', before, signal);
  } catch (cause) {
    const what = cause instanceof DaemonError ? cause.message : String(cause);
    const back = await rollBack(restart, undo, { restarted, before, units });
    const code = cause instanceof DaemonError ? cause.code : 'internal';
    throw new DaemonError(code, `${what}. ${back}`, {}, { cause });
  }
}

/** Tells in one sentence what became of it. Not on the caller's signal: an interrupt must not leave half of it. */
async function rollBack(
  restart: ContainerdRestart,
  undo: () => void,
  facts: {
    readonly restarted: boolean;
    readonly before: ImageSnapshot;
    readonly units: DaemonUnits;
  },
): Promise<string> {
  const own = new AbortController().signal;
  undo();
  try {
    await restart.reload(own);
    if (facts.restarted) {
      await restart.restartContainerd(own);
      await restart.verify('builtin', facts.before, own);
    }
    await restart.restoreDaemon(facts.units, own);
    return facts.restarted
      ? 'Every file is as it was, and containerd runs with its own content store again.'
      : 'Every file is as it was, containerd was not touched.';
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    return `Every file is as it was, but containerd needs a look: ${why}.`;
  }
}
