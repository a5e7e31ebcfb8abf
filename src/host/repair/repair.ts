import type { Clock } from '../../base/clock.ts';
import { DaemonError } from '../../base/errors.ts';
import { PROXY_NAME } from '../containerd-config.ts';
import type { BlobDoor } from '../doctor/context.ts';
import type { ContainerdDoor, HeldResource, KnownBlob } from './containerd-door.ts';
import { LostImages } from './lost-images.ts';

/** Namespaces looked at; a host has a handful. */
const NAMESPACES_MAX = 64;
/** Blobs in one run; with more the disk is the problem. */
export const LOST_MAX = 1_000;
/** What is still there of an image is kept this long for the pull that completes it; longer would keep the space of a removed image. */
const HOLD_MS = 60 * 60 * 1000;
/** Resources of one lease: an index of many platforms, or a manifest of many layers. */
const HELD_MAX = 1_024;

/** What the daemon's disk has of a blob. */
export type DiskState = 'right' | 'lost' | 'cache_wrong' | 'absent';

/** The daemon, as `repair` needs it. */
export interface RepairDaemon {
  /** Blobs it knows to be lost. */
  lost(signal: AbortSignal): Promise<readonly { readonly digest: string }[]>;
  /** Reads the blob to its last byte and compares; takes as long as the disk takes. */
  check(digest: string, signal: AbortSignal): Promise<DiskState>;
}

export type RepairModules = {
  readonly daemon: RepairDaemon;
  readonly door: Pick<BlobDoor, 'read'>;
  readonly containerd: ContainerdDoor;
  readonly clock: Clock;
};

export type RepairOptions = {
  /** Digests to look at; none = those the daemon names. */
  readonly digests: readonly string[];
  /** Only these namespaces; none = all. */
  readonly namespaces: readonly string[];
  /** The daemon's socket: containerd must use it. */
  readonly socket_path: string;
};

/** A record of containerd for a blob that it does not have. */
type LostEntry = {
  readonly digest: string;
  readonly namespace: string;
  readonly size_bytes: number;
  /** Images of the namespace that are made of it, as far as that can still be told. */
  readonly images: readonly string[];
  /** What only this record keeps from garbage collection. */
  readonly keeps: readonly HeldResource[];
};

/** What a run would do. */
export type RepairPlan = {
  readonly entries: readonly LostEntry[];
  /** Named or lost blobs for which nothing is to be done, and why. */
  readonly notes: readonly string[];
};

/**
 * Looks which records containerd has for blobs that are gone or wrong on disk. Nothing is changed, but a named blob that turns out to be
 * wrong is out of service then. `failed_precondition` when containerd does not use this daemon: another store may have those blobs.
 */
export async function planRepair(
  modules: RepairModules,
  options: RepairOptions,
  signal: AbortSignal,
): Promise<RepairPlan> {
  const { containerd } = modules;
  await demandOurStore(containerd, options.socket_path, signal);
  const { digests, notes } = await gone(modules, options, signal);
  if (digests.length === 0) return { entries: [], notes };
  const images = new LostImages(modules);
  const entries: LostEntry[] = [];
  for (const namespace of await chosenNamespaces(containerd, options.namespaces, signal)) {
    const known: { readonly digest: string; readonly blob: KnownBlob }[] = [];
    for (const digest of digests) {
      const blob = await containerd.blob(namespace, digest, signal);
      if (blob !== undefined) known.push({ digest, blob });
    }
    if (known.length === 0) continue;
    const lost = known.map(({ digest }) => digest);
    const using = await images.using(namespace, lost, signal);
    for (const { digest, blob } of known) {
      entries.push({
        digest,
        namespace,
        size_bytes: blob.size_bytes,
        images: using.get(digest) ?? [],
        // What is lost itself needs no keeping.
        keeps: keptBy(blob.labels).filter(({ id }) => !digests.includes(id)),
      });
    }
  }
  for (const digest of digests) {
    if (entries.some((entry) => entry.digest === digest)) continue;
    notes.push(`${digest} is not here, and containerd has no record of it: a pull fetches it`);
  }
  return { entries, notes };
}

/** What became of one record. `kept`: a peer has brought the blob back meanwhile. */
export type RepairedEntry = LostEntry & { readonly outcome: 'forgotten' | 'kept' | 'gone' };

/** Makes containerd forget the records, so that the next pull writes the blobs again; what hangs on them is held by a lease first. */
export async function applyRepair(
  modules: RepairModules,
  plan: RepairPlan,
  signal: AbortSignal,
): Promise<readonly RepairedEntry[]> {
  const { containerd, daemon, clock } = modules;
  const now_epoch_ms = Number(clock.wall_ns() / 1_000_000n);
  const done: RepairedEntry[] = [];
  for (const [index, entry] of plan.entries.entries()) {
    signal.throwIfAborted();
    const { namespace, digest, keeps } = entry;
    // The last look: what is there again must not be forgotten.
    const state = await daemon.check(digest, signal);
    if (state === 'right') {
      done.push({ ...entry, outcome: 'kept' });
      continue;
    }
    if (keeps.length > 0) {
      const id = `layerswarm-repair-${now_epoch_ms}-${index}`;
      const until_epoch_ms = now_epoch_ms + HOLD_MS;
      await containerd.hold(namespace, { id, until_epoch_ms, resources: keeps }, signal);
    }
    const known = await containerd.forget(namespace, digest, signal);
    done.push({ ...entry, outcome: known ? 'forgotten' : 'gone' });
  }
  return done;
}

async function demandOurStore(
  containerd: ContainerdDoor,
  socket_path: string,
  signal: AbortSignal,
): Promise<void> {
  const plugins = await containerd.contentPlugins(signal);
  const ours = plugins.find(({ id }) => id === PROXY_NAME);
  const address = ours?.address?.replace(/^unix:\/\//, '');
  if (ours !== undefined && (address === undefined || address === socket_path)) return;
  const why =
    ours === undefined
      ? `its content store is ${plugins.map(({ id }) => `"${id}"`).join(', ') || 'none'}`
      : `it looks for layerswarm at ${address ?? ''} and the daemon serves ${socket_path}`;
  throw new DaemonError(
    'failed_precondition',
    `this containerd does not take its content from this daemon: ${why}. Nothing was changed; see layerswarm doctor --only wiring`,
  );
}

async function gone(
  { daemon }: RepairModules,
  { digests }: RepairOptions,
  signal: AbortSignal,
): Promise<{ digests: readonly string[]; notes: string[] }> {
  if (digests.length === 0) {
    const lost = (await daemon.lost(signal)).map(({ digest }) => digest);
    return { digests: lost.slice(0, LOST_MAX), notes: [] };
  }
  const missing: string[] = [];
  const notes: string[] = [];
  for (const digest of new Set(digests)) {
    const state = await daemon.check(digest, signal);
    if (state === 'right') notes.push(`${digest} is right on disk, to its last byte`);
    else missing.push(digest);
  }
  return { digests: missing, notes };
}

async function chosenNamespaces(
  containerd: ContainerdDoor,
  wanted: readonly string[],
  signal: AbortSignal,
): Promise<readonly string[]> {
  const all = await containerd.namespaces(signal);
  const unknown = wanted.find((name) => !all.includes(name));
  if (unknown !== undefined) {
    throw new DaemonError(
      'not_found',
      `containerd has no namespace "${unknown}"; there are: ${all.join(', ')}`,
    );
  }
  return (wanted.length === 0 ? all : wanted).slice(0, NAMESPACES_MAX);
}

/** The blobs and snapshots that containerd keeps because of a record's labels. */
function keptBy(labels: Readonly<Record<string, string>>): HeldResource[] {
  const held = Object.entries(labels).flatMap(([name, id]): HeldResource[] => {
    const [, kind, rest = ''] =
      /^containerd\.io\/gc\.ref\.(content|snapshot)\b\.?(.*)$/.exec(name) ?? [];
    if (kind === 'content') return [{ type: 'content', id }];
    // The rest of a snapshot's label is the snapshotter, and after a slash an index that only tells labels apart.
    const snapshotter = rest.split('/')[0] ?? '';
    return kind === 'snapshot' && snapshotter !== ''
      ? [{ type: `snapshots/${snapshotter}`, id }]
      : [];
  });
  return held.slice(0, HELD_MAX);
}
