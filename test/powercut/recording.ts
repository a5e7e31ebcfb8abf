// One host's life on a logged disk: real containerd and the product's daemon fetch, forget and fetch again, and the log keeps it.
import { setTimeout as pause } from 'node:timers/promises';
import { join } from 'node:path';
import { SeededRandom } from '../fixtures/seeded-random.ts';
import type { ContainerdLine } from '../host/lab/debian-packages.ts';
import type { LabHost } from '../host/lab/host.ts';
import type { Pushed } from '../host/pull-bench.ts';
import { midPull, rateFor } from '../host/pull-bench.ts';
import type { SwarmLab, SwarmNode } from '../host/swarm-lab.ts';
import { blobsOf } from '../host/swarm-lab.ts';
import { LoggedDisk } from './logged-disk.ts';
import type { Extent, LoggedDiskOptions } from './logged-disk.ts';

const DISK_BYTES = 512 * 1024 * 1024;
/** Pauses between two steps, in ms: in some the journal commits, in most it does not. */
const IDLE_MS = 700;
/** A client that gives up does so within this, in ms. */
const PATIENCE_MS = 250;

/** The images of a recording, by where they are when it begins. */
export interface CutImages {
  /** Held by a peer. */
  readonly near: Pushed;
  /** Another version of `near`, only in the registry. */
  readonly next: Pushed;
  /** Only in the registry. */
  readonly far: Pushed;
  /** Held by a peer that dies in the middle of it. */
  readonly half: Pushed;
  /** Many small layers, only in the registry; fetched at the same time. */
  readonly many: readonly Pushed[];
  readonly tiny: Pushed;
}

/** Every image of a recording. */
export function allOf({ near, next, far, half, many, tiny }: CutImages): readonly Pushed[] {
  return [near, next, far, half, ...many, tiny];
}

/** From `position` of the log on containerd's clients were told that they have an image; or they gave it back. */
export interface Told {
  readonly position: number;
  readonly at_ms: number;
  readonly namespace: string;
  readonly ref: string;
  readonly has: boolean;
}

export interface RecordingParts {
  readonly lab: SwarmLab;
  readonly images: CutImages;
  /** Holds `near`. */
  readonly steady: SwarmNode;
  /** Holds `half`. */
  readonly mortal: SwarmNode;
}

export interface RecordingOptions {
  readonly name: string;
  readonly line: ContainerdLine;
  readonly product: readonly string[];
  /** How its disk behaves. */
  readonly disk: Pick<LoggedDiskOptions, 'mount_options' | 'flush_ms' | 'bytes_per_ms'>;
  /** Decides the order of the steps and the pauses. */
  readonly seed: string;
}

/** A recorded life; made by `record`. The node is stopped and its disk unplugged. */
export interface Recording {
  readonly node: SwarmNode;
  readonly disk: LoggedDisk;
  readonly told: readonly Told[];
  /** Where on the disk containerd's database lies. */
  readonly database: readonly Extent[];
  /** `<namespace> <digest>` of the blobs containerd knew at the end. */
  readonly known: readonly string[];
}

/** `ctr content fetch`: the whole image, nothing unpacked. */
export async function fetchImage(
  { containerd }: SwarmNode,
  ref: string,
  options: { readonly namespace?: string; readonly signal?: AbortSignal } = {},
): Promise<void> {
  const hosts = ['--hosts-dir', join(containerd.dir, 'certs')];
  await containerd.ctr(['content', 'fetch', ...hosts, ref], options);
}

/** Starts a host, lives through every step once in an order of the seed's, and cuts nothing yet. */
export async function record(parts: RecordingParts, options: RecordingOptions): Promise<Recording> {
  const { lab, steady, mortal } = parts;
  let disk: LoggedDisk | undefined;
  const node = await lab.addNode(options.name, {
    line: options.line,
    product: options.product,
    // All on one disk, as on most hosts.
    config: (host) => ({
      store: [
        `state_directory = "${join(rootOf(host), 'layerswarm')}"`,
        // Some of what is deleted comes back out of the cache, most has to be fetched again.
        'cache_max_bytes = 8000000',
      ],
    }),
    prepare: async (host) => {
      disk = await LoggedDisk.create(host, {
        mountpoint: rootOf(host),
        size_bytes: DISK_BYTES,
        ...options.disk,
      });
    },
  });
  const life = new Life(node, disk!, new SeededRandom(options.seed));
  await lab.meshed(node, {
    peers: 2,
    holders: [steady, mortal],
    blobs: Math.min(...[parts.images.near, parts.images.half].map((p) => blobsOf(p.image).length)),
  });
  await life.age();
  await life.through(parts);
  const database = await disk!.extentsOf(
    join(node.content_dir, '../io.containerd.metadata.v1.bolt/meta.db'),
  );
  const known: string[] = [];
  for (const namespace of ['default', 'other'])
    for (const digest of await node.containerd.contentList(namespace))
      known.push(`${namespace} ${digest}`);
  await node.containerd.stop(0);
  await node.daemon.crash();
  await disk!.unplug();
  return { node, disk: disk!, told: life.told, database, known };
}

/** containerd's root directory, which is the whole disk. */
function rootOf(host: LabHost): string {
  return join(host.dir, 'containerd/root');
}

class Life {
  readonly told: Told[] = [];
  readonly #node: SwarmNode;
  readonly #disk: LoggedDisk;
  readonly #random: SeededRandom;

  constructor(node: SwarmNode, disk: LoggedDisk, random: SeededRandom) {
    this.#node = node;
    this.#disk = disk;
    this.#random = random;
  }

  /**
   * Makes containerd's database as large as that of a host that is not new. In a new one nearly every transaction writes where the
   * file has no block yet, so that its fdatasync has to commit the file system's journal, and with it every rename before it.
   */
  async age(): Promise<void> {
    const { containerd } = this.#node;
    const labels = Array.from({ length: 60 }, (_, i) => `label${i}=${'x'.repeat(4000)}`);
    const names = ['old1', 'old2', 'old3', 'old4'];
    for (const name of names) await containerd.ctr(['namespaces', 'create', name, ...labels]);
    for (const name of names) await containerd.ctr(['namespaces', 'remove', name]);
  }

  /** Every step once, some twice, each followed by a pause. */
  async through({ images, mortal }: RecordingParts): Promise<void> {
    const { near, next, far, half, many, tiny } = images;
    const steps: (() => Promise<void>)[] = [
      () => this.fetch(far),
      () => this.fetch(tiny),
      async () => {
        await this.fetch(near);
        await this.idle();
        await this.forget(near);
        // Its blobs come back out of the cache.
        await this.fetch(near);
      },
      async () => {
        await this.giveUp(next);
        await this.fetch(next);
      },
      async () => {
        await Promise.all([this.fetch(far, 'other'), this.fetch(tiny, 'other')]);
        await this.idle();
        await this.forget(far, 'other');
      },
      async () => {
        await mortal.host.shape({ rate_bits: rateFor(half, 3) });
        const fetching = this.fetch(half);
        // Awaited below.
        fetching.catch(() => undefined);
        await midPull(this.#node, half);
        await mortal.daemon.crash();
        await fetching;
      },
      // As on a host that was just added to a cluster.
      async () => {
        await Promise.all(many.map(async (pushed) => this.fetch(pushed)));
      },
      () => this.unpack(tiny),
      () => this.ingest(),
    ];
    for (const step of this.#shuffled(steps)) {
      await step();
      await this.idle();
    }
    const large = [near, next, far, half, ...many];
    for (const pushed of this.#shuffled(large)) await this.forget(pushed);
    await this.idle();
    await Promise.all(large.map(async (pushed) => this.fetch(pushed)));
    await this.idle();
  }

  async fetch(pushed: Pushed, namespace = 'default'): Promise<void> {
    await fetchImage(this.#node, pushed.ref, { namespace });
    this.#note(pushed, namespace, true);
  }

  /** A client that is killed at a random instant. */
  async giveUp(pushed: Pushed): Promise<void> {
    const signal = AbortSignal.timeout(20 + this.#random.below(PATIENCE_MS));
    // It may be quicker than its patience ends; nobody was told either way.
    await fetchImage(this.#node, pushed.ref, { signal }).catch(() => undefined);
  }

  async unpack(pushed: Pushed): Promise<void> {
    await this.#node.containerd.pull(pushed.ref);
    this.#note(pushed, 'default', true);
  }

  /** A writer that tells neither size nor digest beforehand: its blob is published in its COMMIT. */
  async ingest(): Promise<void> {
    const { containerd, host } = this.#node;
    const ctr = join(containerd.package.bin_dir, 'ctr');
    const script = 'head -c 20000000 "$1" | "$1" -a "$2" content ingest piped';
    await host.run(['sh', '-c', script, 'sh', ctr, containerd.socket]);
  }

  async forget(pushed: Pushed, namespace = 'default'): Promise<void> {
    this.#note(pushed, namespace, false);
    await this.#node.containerd.removeImage(pushed.ref, namespace);
  }

  async idle(): Promise<void> {
    await pause(this.#random.below(IDLE_MS));
  }

  #note({ ref }: Pushed, namespace: string, has: boolean): void {
    const { position } = this.#disk;
    this.told.push({ position, at_ms: Date.now(), namespace, ref, has });
  }

  #shuffled<T>(items: readonly T[]): readonly T[] {
    return items
      .map((item) => ({ item, key: this.#random.below(2 ** 32) }))
      .toSorted((x, y) => x.key - y.key)
      .map(({ item }) => item);
  }
}
