// One pull on one host: progress while it runs, and the check of what containerd has then.
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { humanBytes, humanRate } from '../../src/cli/render.ts';
import { layerBytes } from '../fixtures/image.ts';
import type { TestImage } from '../fixtures/image.ts';
import type { SwarmNode } from '../host/swarm-lab.ts';
import { blobsOf } from '../host/swarm-lab.ts';
import type { PlannedHost } from './plan.ts';
import type { Screen } from './screen.ts';

/** An image of 4 GiB over a slow disk; a pull that takes longer than this hangs. */
const PULL_DEADLINE_MS = 10 * 60_000;
const BAR_CELLS = 18;
/** Rates are over this much of the past, in ms. */
const RATE_WINDOW_MS = 1500;

/** A pull that succeeded, as far as this host can tell. The registry's side is counted by `countAtRegistry`. */
export interface HostPull {
  readonly planned: PlannedHost;
  readonly version: string;
  readonly address: string;
  readonly seconds: number;
  readonly bytes_from_peers: number;
  /** Digests of blobs that containerd lacks or gives out wrong; empty when all is well. */
  readonly wrong_digests: readonly string[];
}

interface PullModules {
  readonly planned: PlannedHost;
  readonly node: SwarmNode;
  readonly screen: Screen;
  readonly signal: AbortSignal;
}

/** Pulls `ref` with the host's client, shows how it goes, and reads every blob back. Rejects when the client fails. */
export async function pullOn(
  modules: PullModules,
  image: TestImage,
  ref: string,
): Promise<HostPull> {
  const { planned, node, screen, signal } = modules;
  const { containerd } = node;
  const { client } = planned;
  const start = await trafficOf(node);
  const progress = new Progress(planned, layerBytes(image));
  const { elapsed_ms } = await screen.during(
    containerd.pull(ref, { client, signal, deadline_ms: PULL_DEADLINE_MS }),
    async () => {
      const now = await trafficOf(node);
      return progress.text(now.peers - start.peers, now.registry - start.registry);
    },
  );
  const bytes_from_peers = (await trafficOf(node)).peers - start.peers;
  const head = `${title(planned)}  pulled in ${(elapsed_ms / 1000).toFixed(1)} s`;
  const wrong_digests = await screen.during(
    wrongDigests(node, client, image, ref),
    () => `${head}, hashing what is on its disk ...`,
  );
  const verdict =
    wrong_digests.length === 0
      ? `all ${blobsOf(image).length} digests right`
      : `WRONG: ${wrong_digests.join(', ')}`;
  screen.line(`${head}, ${humanBytes(bytes_from_peers)} from peers, ${verdict}`);
  return {
    planned,
    version: containerd.version,
    address: node.host.address,
    seconds: elapsed_ms / 1000,
    bytes_from_peers,
    wrong_digests,
  };
}

/** `B ctr 2.1`: short, because a progress line has to fit into 80 columns. */
function title({ label, client, line }: PlannedHost): string {
  return `${label} ${client === 'ctr' ? 'ctr' : 'CRI'} ${line}`;
}

/** Progress of one pull as one line of text; bytes as the daemon counts them while they come. */
class Progress {
  readonly #head: string;
  readonly #size: number;
  readonly #start_ms = performance.now();
  readonly #marks = [{ at_ms: this.#start_ms, bytes: 0 }];

  constructor(planned: PlannedHost, size: number) {
    this.#head = title(planned);
    this.#size = size;
  }

  text(peers: number, registry: number): string {
    const bytes = peers + registry;
    const at_ms = performance.now();
    this.#marks.push({ at_ms, bytes });
    while (this.#marks.length > 2 && at_ms - this.#marks[0]!.at_ms > RATE_WINDOW_MS)
      this.#marks.shift();
    const first = this.#marks[0]!;
    const rate = at_ms > first.at_ms ? ((bytes - first.bytes) * 1000) / (at_ms - first.at_ms) : 0;
    const part = Math.min(1, bytes / this.#size);
    const bar = '='.repeat(Math.floor(part * BAR_CELLS)).padEnd(BAR_CELLS, '.');
    const percent = `${Math.floor(part * 100)}%`.padStart(4);
    const doing = part === 1 ? 'unpacking' : humanRate(rate);
    const seconds = ((at_ms - this.#start_ms) / 1000).toFixed(1).padStart(5);
    return `${this.#head} [${bar}]${percent}${seconds} s  peers ${humanBytes(peers)}, registry ${humanBytes(registry)}  ${doing}`;
  }
}

/**
 * Hashes the file of every blob of the image; resolves to the digests that are wrong or that containerd does not list.
 * Not through containerd: its reads are what the pull already did once, and neither it nor the daemon is asked about
 * itself.
 */
async function wrongDigests(
  node: SwarmNode,
  client: 'ctr' | 'cri',
  image: TestImage,
  ref: string,
): Promise<string[]> {
  const namespace = client === 'cri' ? 'k8s.io' : 'default';
  const target = await node.containerd.imageDigest(ref, namespace);
  const listed = await node.containerd.contentList(namespace);
  const wrong: string[] = [];
  if (target !== image.target.digest) wrong.push(`${ref} is ${target ?? 'absent'}`);
  for (const { digest } of blobsOf(image)) {
    const hex = digest.slice('sha256:'.length);
    const is = await hashOf(join(node.content_dir, 'blobs/sha256', hex));
    if (is !== hex || !listed.includes(digest)) wrong.push(digest);
  }
  return wrong;
}

/** SHA-256 of a file in hex; undefined when it cannot be read. */
async function hashOf(file: string): Promise<string | undefined> {
  const hash = createHash('sha256');
  try {
    await pipeline(createReadStream(file, { highWaterMark: 1024 * 1024 }), hash);
    return hash.digest('hex');
  } catch {
    // Absent or unreadable: either way the digest is not there, which is the answer.
    return undefined;
  }
}

/** The daemon's totals so far, in bytes. What containerd writes is what it fetched from the registry. */
async function trafficOf(
  node: SwarmNode,
): Promise<{ readonly peers: number; readonly registry: number }> {
  const { traffic } = await node.daemon.status();
  return {
    peers: traffic?.receivedFromPeersBytes ?? 0,
    registry: traffic?.writtenByContainerdBytes ?? 0,
  };
}
