// What the pull scenarios share: three hosts (A holds, B pulls, the hub has the registry) and the oracles of a right pull.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { readFile, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { buildImage, layerBytes } from '../fixtures/image.ts';
import type { TestImage } from '../fixtures/image.ts';
import { assertImageReadable } from './lab/content-oracle.ts';
import { cacheDir, debianTools } from './lab/debian-packages.ts';
import type { ContainerdLine } from './lab/debian-packages.ts';
import { SWARM_PORT, SwarmLab, blobsOf } from './swarm-lab.ts';
import type { SwarmNode } from './swarm-lab.ts';
import { until, untilTrue } from './wait.ts';

export type Client = 'ctr' | 'cri';
export const CLIENTS = ['ctr', 'cri'] as const satisfies readonly Client[];

/** Namespaces a scenario may leave images in. */
const SPACES = ['default', 'k8s.io', 'a', 'b'];

/** An image in the registry. */
export interface Pushed {
  readonly image: TestImage;
  readonly ref: string;
}

/** Where a client's images are. */
export function spaceOf(client: Client): string {
  return client === 'cri' ? 'k8s.io' : 'default';
}

type PullBenchParts = Pick<PullBench, 'line' | 'lab' | 'a' | 'b' | 'app' | 'solo' | 'eight'>;

/** The hosts of one containerd line, kept over all scenarios of the line. */
export class PullBench implements AsyncDisposable {
  readonly line: ContainerdLine;
  readonly lab: SwarmLab;
  /** Holds `app` and `eight`. */
  readonly a: SwarmNode;
  /** Pulls; keeps no cache, so that what containerd deletes is gone. */
  readonly b: SwarmNode;
  /** About 64 MB, five gzip layers and a zstd one. */
  readonly app: Pushed;
  /** Held by nobody. */
  readonly solo: Pushed;
  /** Eight layers of one size. */
  readonly eight: Pushed;

  private constructor(parts: PullBenchParts) {
    this.line = parts.line;
    this.lab = parts.lab;
    this.a = parts.a;
    this.b = parts.b;
    this.app = parts.app;
    this.solo = parts.solo;
    this.eight = parts.eight;
  }

  get #blobs(): number {
    const { app, eight } = this;
    return new Set([...blobsOf(app.image), ...blobsOf(eight.image)].map((d) => d.digest)).size;
  }

  static async create(line: ContainerdLine): Promise<PullBench> {
    const tools = await debianTools();
    const { busybox } = tools;
    const build = async (recipe: Omit<Parameters<typeof buildImage>[0], 'busybox'>) =>
      buildImage({ ...recipe, busybox }, cacheDir());
    const command = ['/bin/sleep', '86400'];
    const pause = await build({ seed: 'pause', size_bytes: 10_000, layers: 1, command });
    const app = await build({ seed: 'swarm', size_bytes: 64_000_000, zstd: true });
    const solo = await build({ seed: 'solo', size_bytes: 24_000_000, zstd: true, index: true });
    const eight = await build({ seed: 'eight', size_bytes: 44_000_000, layers: 8, even: true });
    await using stack = new AsyncDisposableStack();
    const lab = stack.use(await SwarmLab.create(tools));
    const push = async (image: TestImage, name: string): Promise<Pushed> => ({
      image,
      ref: await lab.push(image, name),
    });
    await lab.registry.push(pause, 'pause');
    const parts = {
      line,
      lab,
      app: await push(app, 'app'),
      solo: await push(solo, 'solo'),
      eight: await push(eight, 'eight'),
    };
    const a = await lab.addNode('a', { line });
    await a.containerd.pull(parts.app.ref);
    await a.containerd.pull(parts.eight.ref);
    const b = await lab.addNode('b', { line, config: { store: ['cache_max_bytes = 0'] } });
    await callFirst(a, b);
    stack.move();
    return new PullBench({ ...parts, a, b });
  }

  /** B holds nothing, A is connected and known to hold its images, links are unshaped, and counting starts anew. */
  async ready(): Promise<void> {
    const { lab, a, b } = this;
    await a.host.shape({});
    await forgetImages(b);
    await lab.meshed(b, { peers: 1, holders: [a], blobs: this.#blobs });
    await lab.registry.forget();
  }

  /** `ready`, with one more host that is known to hold something. */
  async readyWith(other: SwarmNode): Promise<void> {
    const { lab, a, b } = this;
    await a.host.shape({});
    await forgetImages(b);
    await lab.meshed(b, { peers: 2, holders: [a], blobs: this.#blobs });
    // The other one may have no control door; what matters is what B knows.
    await lab.heldByAll(b, other.seeded_blobs);
    await lab.registry.forget();
  }

  /** The registry was asked for no layer of it. */
  async noLayerGets({ image }: Pushed): Promise<void> {
    const gets = await this.lab.registry.layerGets(image);
    const told = gets.map((get) => `${get.status} ${get.bytes} of ${get.path.slice(-64, -52)}`);
    assert.deepEqual(told, [], 'layers asked of the registry');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.lab[Symbol.asyncDispose]();
  }
}

/** From its next start on `node` calls `other`, who would wait half a minute before it called somebody again that had died. */
async function callFirst(node: SwarmNode, other: SwarmNode): Promise<void> {
  const { config } = node.daemon;
  const text = await readFile(config, 'utf8');
  const bootstrap = `bootstrap = ["${other.host.address}:${SWARM_PORT}"]`;
  assert.ok(text.includes('bootstrap = []'));
  await writeFile(config, text.replace('bootstrap = []', bootstrap));
}

/** Takes every image, lease and unfinished ingest from a node, and waits until its disk and its daemon know none. */
export async function forgetImages(node: SwarmNode): Promise<void> {
  const { containerd } = node;
  await containerd.clear(SPACES);
  for (const namespace of SPACES) {
    const { stdout } = await containerd.ctr(['leases', 'ls', '--quiet'], { namespace });
    for (const lease of stdout.split('\n').filter((line) => line !== '')) {
      await containerd.ctr(['leases', 'rm', '--sync', lease], { namespace });
    }
  }
  await untilTrue(`${node.host.name} without blobs and transfers`, async () => {
    if ((await blobFiles(node)).length > 0) return false;
    const { transfers } = await node.daemon.status();
    return transfers.every((transfer) => transfer.state !== 'fetching');
  });
}

/** Digests of the blob files on a node's disk. */
export async function blobFiles(node: SwarmNode): Promise<string[]> {
  const names = await readdir(join(node.content_dir, 'blobs/sha256')).catch(() => []);
  return names.map((name) => `sha256:${name}`);
}

/** Frames, TLS and QUIC around the bytes of blobs, acknowledgements and lists: at most this part of them on top. */
const WIRE_OVERHEAD = 0.08;
/** Manifests, configs, heads and what hosts of a quiet swarm tell one another. */
const WIRE_QUIET_BYTES = 600_000;

/** What left the holder and the registry since a moment, by the counters of their interfaces: no word of the product's. */
export class WireMeter {
  readonly #bench: PullBench;
  readonly #start: readonly [number, number];

  private constructor(bench: PullBench, start: readonly [number, number]) {
    this.#bench = bench;
    this.#start = start;
  }

  static async start(bench: PullBench): Promise<WireMeter> {
    return new WireMeter(bench, await countersOf(bench));
  }

  /** The holder sent `bytes` of blobs once (and up to `slack_bytes` again), and the registry no layer. Resolves to the figures. */
  async allFromHolder(bytes: number, slack_bytes = 0): Promise<string> {
    const now = await countersOf(this.#bench);
    const [holder, registry] = [now[0] - this.#start[0], now[1] - this.#start[1]];
    const told = `the holder sent ${holder} bytes, the registry ${registry}, of ${bytes}`;
    const most = bytes * (1 + WIRE_OVERHEAD) + WIRE_QUIET_BYTES + slack_bytes;
    assert.ok(holder >= bytes && holder < most, told);
    assert.ok(registry < WIRE_QUIET_BYTES, told);
    return told;
  }
}

async function countersOf({ lab, a }: PullBench): Promise<readonly [number, number]> {
  return Promise.all([a.host.sentBytes(), lab.hub.sentBytes()]);
}

/** Bytes from peers and from containerd so far. */
export async function trafficOf(
  node: SwarmNode,
): Promise<{ readonly peers: number; readonly written: number }> {
  const { traffic } = await node.daemon.status();
  return {
    peers: traffic?.receivedFromPeersBytes ?? 0,
    written: traffic?.writtenByContainerdBytes ?? 0,
  };
}

/** Pulls and asserts that what containerd has then is exactly the image. */
export async function pullRight(node: SwarmNode, pushed: Pushed, client: Client): Promise<void> {
  await node.containerd.pull(pushed.ref, { client });
  await assertRight(node, pushed, spaceOf(client));
}

/**
 * Pulls after a restart of the daemon, again while containerd waits before it connects anew (up to 3 s, more on a loaded machine). What else
 * fails the pull passes through.
 */
export async function pullOnceConnected(
  { containerd }: SwarmNode,
  { ref }: Pushed,
  client: Client,
): Promise<void> {
  const failure = await until('containerd connected to the daemon', async () => {
    try {
      await containerd.pull(ref, { client });
    } catch (error) {
      if (/unavailable/i.test(String(error))) throw error;
      return { error: error instanceof Error ? error : new Error(String(error)) };
    }
    return { error: undefined };
  });
  if (failure.error !== undefined) throw failure.error;
}

/**
 * The image of `namespace` has the right digest, every blob of it reads right through containerd, and every file on disk is what
 * its name says.
 */
export async function assertRight(
  node: SwarmNode,
  pushed: Pushed,
  namespace: string,
): Promise<void> {
  const { image, ref } = pushed;
  assert.equal(await node.containerd.imageDigest(ref, namespace), image.target.digest);
  await assertImageReadable(node, image, namespace);
  await assertHonestDisk(node);
}

/** No file among the committed blobs has other bytes than its name promises. What is missing is not seen here: `assertRight` sees it. */
export async function assertHonestDisk(node: SwarmNode): Promise<void> {
  for (const digest of await blobFiles(node)) {
    const hash = createHash('sha256');
    const file = join(node.content_dir, 'blobs/sha256', digest.slice('sha256:'.length));
    try {
      await pipeline(createReadStream(file, { highWaterMark: 1024 * 1024 }), hash);
    } catch (error) {
      // containerd's collection may take an unreferenced blob meanwhile.
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') continue;
      throw error;
    }
    assert.equal(`sha256:${hash.digest('hex')}`, digest);
  }
}

/** Waits until some bytes of the image came from peers and no large layer is whole yet: the middle of a pull. */
export async function midPull(node: SwarmNode, { image }: Pushed): Promise<void> {
  const large = image.layers.reduce((most, layer) => (layer.size > most.size ? layer : most));
  await untilTrue('the middle of a pull', async () => {
    const { transfers } = await node.daemon.status();
    const transfer = transfers.find((t) => t.digest === large.digest);
    if (transfer === undefined) return false;
    assert.notEqual(transfer.state, 'complete', 'the pull was over before its middle');
    return transfer.receivedBytes >= large.size / 4;
  });
}

/** Fraction of the image's layers, for rates that make a pull last about `seconds`. */
export function rateFor({ image }: Pushed, seconds: number): number {
  return Math.round((layerBytes(image) * 8) / seconds);
}
