import type { Clock } from '../base/clock.ts';
import { DaemonError } from '../base/errors.ts';
import { parseDigest } from '../oci/digest.ts';
import type { BlobDoor } from '../host/doctor/context.ts';
import { quoted } from '../host/doctor/shell.ts';
import type { ContainerdDoor } from '../host/repair/containerd-door.ts';
import {
  applyRepair,
  LOST_MAX,
  planRepair,
  type RepairDaemon,
  type RepairedEntry,
  type RepairPlan,
} from '../host/repair/repair.ts';
import { STATUS } from '../rpc/status.ts';
import type { Output } from './output.ts';
import { humanBytes } from './render.ts';
import { agreed } from './wiring-command.ts';

/** The daemon, with its list of lost blobs. */
type LostKeeper = RepairDaemon & {
  forgetLost(digest: string, signal: AbortSignal): Promise<void>;
};

/** What `repair` needs of this host; main.ts gives the real one. */
export type RepairWorld = {
  readonly openDaemon: (socket_path: string) => Promise<LostKeeper & Disposable>;
  readonly openBlobDoor: (socket_path: string) => Promise<BlobDoor>;
  readonly openContainerd: (address: string) => Promise<ContainerdDoor>;
  /** Where the running containerd listens, from how it was started and from its configuration. */
  readonly containerdAddress: (
    containerd_config: string | undefined,
    signal: AbortSignal,
  ) => Promise<string>;
};

export type RepairOptions = {
  readonly containerdAddress?: string;
  readonly containerdConfig?: string;
  readonly namespace?: readonly string[];
  readonly dryRun?: boolean;
  readonly json?: boolean;
  readonly yes?: boolean;
};

export type RepairCommandModules = {
  readonly output: Output;
  readonly clock: Clock;
  readonly world: RepairWorld;
  readonly confirm: ((question: string, signal: AbortSignal) => Promise<boolean>) | undefined;
  /** The daemon's socket. */
  readonly socket_path: string;
  readonly interrupted: () => AbortSignal;
};

/** The one object of `--json`. */
export type RepairReport = {
  readonly command: 'repair';
  readonly outcome: 'nothing_to_do' | 'dry_run' | 'done';
  readonly containerd: string;
  readonly entries: readonly {
    readonly digest: string;
    readonly namespace: string;
    readonly size_bytes: number;
    readonly images: readonly string[];
    /** `planned` in a dry run; `kept`: a peer has brought it back meanwhile; `gone`: containerd had forgotten it by itself. */
    readonly outcome: 'planned' | RepairedEntry['outcome'];
  }[];
  readonly notes: readonly string[];
  /** What to run next. */
  readonly commands: readonly string[];
};

/**
 * `layerswarm repair`: makes containerd forget blobs that are gone or wrong on disk, so that the next pull writes them again.
 * Shows what it would do and asks. Resolves to the exit code.
 */
export async function runRepair(
  modules: RepairCommandModules,
  digests: readonly string[],
  options: RepairOptions,
): Promise<number> {
  const { output, world, socket_path, clock } = modules;
  const named = digests.map((text) => parseDigest(text));
  if (named.length > LOST_MAX) {
    throw new DaemonError('invalid_argument', `more than ${LOST_MAX} digests at once`);
  }
  const signal = modules.interrupted();
  using daemon = await world.openDaemon(socket_path);
  using door = await world.openBlobDoor(socket_path);
  const address =
    options.containerdAddress?.replace(/^unix:\/\//, '') ??
    (await world.containerdAddress(options.containerdConfig, signal));
  using containerd = await world.openContainerd(address);
  const parts = { daemon, door, containerd, clock };
  const namespaces = options.namespace ?? [];
  const plan = await planRepair(parts, { digests: named, namespaces, socket_path }, signal);
  const json = options.json === true;
  if (!json) output.out(describe(plan));
  const dry_run = options.dryRun === true;
  let done: readonly RepairedEntry[] = [];
  if (plan.entries.length > 0 && !dry_run) {
    const blobs = new Set(plan.entries.map(({ digest }) => digest)).size;
    const question = `Make containerd forget ${blobs === 1 ? 'this blob' : `these ${blobs} blobs`}, so that the next pull fetches ${blobs === 1 ? 'it' : 'them'} again?`;
    if (!(await agreed(modules, options, question, signal))) {
      output.out('nothing was changed\n');
      return STATUS.cancelled.exit;
    }
    done = await applyRepair(parts, plan, signal);
  }
  if (!dry_run) await forgetLost(parts, named, signal);
  const report = reportOf(plan, done, { dry_run, address });
  output.out(json ? `${JSON.stringify(report)}\n` : conclude(report));
  return 0;
}

/** Lost blobs of which no namespace has a record are missed no longer. Without names every lost blob was looked at. */
async function forgetLost(
  { daemon, containerd }: { readonly daemon: LostKeeper; readonly containerd: ContainerdDoor },
  named: readonly string[],
  signal: AbortSignal,
): Promise<void> {
  const spaces = await containerd.namespaces(signal);
  for (const { digest } of await daemon.lost(signal)) {
    if (named.length > 0 && !named.includes(digest)) continue;
    const known = spaces.map((namespace) => containerd.blob(namespace, digest, signal));
    const is_known = (await Promise.all(known)).some((blob) => blob !== undefined);
    if (!is_known) await daemon.forgetLost(digest, signal);
  }
}

function describe({ entries, notes }: RepairPlan): string {
  const lines = entries.map(({ digest, namespace, size_bytes, images }) => {
    const of = images.length === 0 ? 'of no image that can be told' : `of ${images.join(', ')}`;
    return `${digest} (${humanBytes(size_bytes)}) is gone or wrong on disk; namespace ${namespace}, ${oneLine(of)}`;
  });
  return [...lines, ...notes].map((line) => `${line}\n`).join('');
}

function reportOf(
  plan: RepairPlan,
  done: readonly RepairedEntry[],
  { dry_run, address }: { readonly dry_run: boolean; readonly address: string },
): RepairReport {
  const entries = dry_run
    ? plan.entries.map((entry) => ({ ...entry, outcome: 'planned' as const }))
    : done;
  return {
    command: 'repair',
    outcome: plan.entries.length === 0 ? 'nothing_to_do' : dry_run ? 'dry_run' : 'done',
    containerd: address,
    entries: entries.map(({ digest, namespace, size_bytes, images, outcome }) => ({
      ...{ digest, namespace, size_bytes },
      images,
      outcome,
    })),
    notes: plan.notes,
    commands: dry_run ? [] : pullCommands(done),
  };
}

/** The pulls that fetch what containerd has forgotten, each once. */
function pullCommands(done: readonly RepairedEntry[]): string[] {
  const commands = done
    .filter(({ outcome }) => outcome !== 'kept')
    .flatMap(({ namespace, images }) =>
      images
        // CRI records an image by its digests too; one pull by name is enough.
        .filter((name) => !/^sha256:|@sha256:/.test(name))
        .map((name) => pullCommand(namespace, name)),
    );
  return [...new Set(commands)];
}

function pullCommand(namespace: string, name: string): string {
  return namespace === 'k8s.io'
    ? `crictl pull ${quoted(name)}`
    : `ctr -n ${quoted(namespace)} images pull ${quoted(name)}`;
}

function conclude({ outcome, entries, commands }: RepairReport): string {
  const lines: string[] = [];
  if (outcome === 'nothing_to_do') lines.push('nothing to do: containerd misses no blob');
  if (outcome === 'dry_run') lines.push('dry run: nothing was changed');
  if (outcome === 'done') {
    const of = (wanted: RepairedEntry['outcome']) =>
      entries.filter((entry) => entry.outcome === wanted).length;
    lines.push(`containerd has forgotten ${of('forgotten')} of ${entries.length} records`);
    if (of('kept') > 0) lines.push(`${of('kept')} were brought back by a peer meanwhile`);
    if (commands.length > 0) {
      lines.push('the next pull fetches them, from a peer or the registry:');
      lines.push(...commands.map((command) => `  ${oneLine(command)}`));
      lines.push(
        'a layer that is unpacked already may be left out until it is needed; containers run without it',
      );
    }
  }
  return lines.map((line) => `${line}\n`).join('');
}

/** Names of images may hold anything; a terminal is shown none of it. */
function oneLine(text: string): string {
  return text.replace(/[\p{C}\p{Zl}\p{Zp}]/gu, ' ');
}
