// Hosts with the product beside real containerd: one registry, one generated cluster key, N hosts that know one another.
import { randomBytes } from 'node:crypto';
import { access, copyFile, mkdir, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { blobPath } from '../fixtures/image.ts';
import type { TestImage } from '../fixtures/image.ts';
import { LabContainerd } from './lab/containerd.ts';
import { answersOn } from './lab/daemon.ts';
import type { ContainerdLine, DebianTools } from './lab/debian-packages.ts';
import type { LabHost } from './lab/host.ts';
import { LabNetwork } from './lab/netns.ts';
import { LabRegistry } from './lab/registry.ts';
import { residueOf } from './lab/residue.ts';
import { NodeDaemon } from './node-daemon.ts';
import { untilTrue } from './wait.ts';

/** Where the daemons of the lab listen for one another. */
export const SWARM_PORT = 7878;
/** The product as it lies here, run from its sources. */
const CHECKOUT: readonly string[] = [
  process.execPath,
  '--disable-warning=ExperimentalWarning',
  resolve(import.meta.dirname, '../../src/main.ts'),
];

/** What of a run is left on the machine when nothing is. */
const NOTHING = { namespaces: [], processes: [], mounts: [], directories: [], cgroups: [] };

type ConfigLines = Readonly<Record<string, readonly string[]>>;

/** One host of the lab. */
export interface NodeOptions {
  /** Containerd of this line, wired to the daemon as its content plugin; none when left out. */
  readonly line?: ContainerdLine;
  /** containerd's content_sharing_policy, when it is not its default. */
  readonly sharing_policy?: 'isolated';
  /** Lines of the configuration by section, e.g. `{ store: ['cache_max_bytes = 0'] }`; they replace the lab's own by key. */
  readonly config?: ConfigLines | ((host: LabHost) => ConfigLines);
  /** A cluster key of its own, in place of the lab's. */
  readonly cluster_key?: string;
  /** Command line of the product, e.g. of an installed one. Default: this checkout's sources. */
  readonly product?: readonly string[];
  /** A program in place of the product, given `--config FILE`. */
  readonly program?: readonly string[];
  /** Size of a file system of its own for the content directory, in bytes; only programs of the host see into it. */
  readonly content_disk_bytes?: number;
  /** Runs before anything of the host starts, e.g. to mount a disk. */
  readonly prepare?: (host: LabHost, content_dir: string) => Promise<void>;
  /** Images whose blobs lie in the content directory before the daemon starts, as if pulled long ago. */
  readonly seeds?: readonly TestImage[];
  /** Decompress with igzip on containerd's side. Default true: the tests are about what arrives, not about gunzip. */
  readonly igzip?: boolean;
  /** containerd serves its own profiles. */
  readonly debug?: boolean;
}

/** A host with its daemon and, if asked for, its containerd. */
export interface SwarmNode {
  readonly host: LabHost;
  readonly daemon: NodeDaemon;
  /** Throws when the node was made without one. */
  readonly containerd: LabContainerd;
  /** containerd's content directory, which the daemon serves. */
  readonly content_dir: string;
  /** Blobs that lay on its disk before its daemon started. */
  readonly seeded_blobs: number;
}

/**
 * A network with a registry (`hub`) and hosts that run the product. Closing it ends every program and removes every
 * trace, also when making it failed half way.
 */
export class SwarmLab implements AsyncDisposable {
  readonly tools: DebianTools;
  readonly network: LabNetwork;
  readonly hub: LabHost;
  readonly registry: LabRegistry;
  readonly #stack: AsyncDisposableStack;
  readonly #cluster_key = randomBytes(32).toString('hex');
  readonly #nodes: SwarmNode[] = [];

  private constructor(stack: AsyncDisposableStack, parts: Omit<LabParts, 'stack'>) {
    this.#stack = stack;
    this.tools = parts.tools;
    this.network = parts.network;
    this.hub = parts.hub;
    this.registry = parts.registry;
  }

  /** The empty lab: a network and its registry. */
  static async create(tools: DebianTools): Promise<SwarmLab> {
    await using stack = new AsyncDisposableStack();
    const network = stack.use(await LabNetwork.create());
    const hub = await network.addHost('hub');
    const registry = stack.use(await LabRegistry.start(hub, tools));
    return new SwarmLab(stack.move(), { tools, network, hub, registry });
  }

  get nodes(): readonly SwarmNode[] {
    return this.#nodes;
  }

  /** Starts a daemon and its containerd on a new host; every earlier host is a bootstrap address of it. */
  async addNode(name: string, options: NodeOptions = {}): Promise<SwarmNode> {
    const host = await this.network.addHost(name);
    const content_dir = join(host.dir, 'containerd/root/io.containerd.content.v1.content');
    const socket = join(host.dir, 'layerswarm.sock');
    const config = join(host.dir, 'layerswarm.toml');
    const key_file = join(host.dir, 'cluster.key');
    await writeFile(key_file, `${options.cluster_key ?? this.#cluster_key}\n`, { mode: 0o600 });
    const bootstrap = this.#nodes.map((node) => `"${node.host.address}:${SWARM_PORT}"`);
    const own: ConfigLines = {
      store: [
        `content_directory = "${content_dir}"`,
        `state_directory = "${join(host.dir, 'state')}"`,
        'create_content_directory = true',
        'disk_floor_bytes = 0',
      ],
      content: [`socket_path = "${socket}"`, 'drain_ms = 2000'],
      swarm: [
        `listen_addresses = ["${host.address}"]`,
        `listen_port = ${SWARM_PORT}`,
        `bootstrap = [${bootstrap.join(', ')}]`,
        `cluster_key_file = "${key_file}"`,
      ],
      metrics: ['listen = "127.0.0.1:9479"'],
      log: ['level = "debug"'],
    };
    const { config: more = {} } = options;
    await writeFile(config, toToml(own, typeof more === 'function' ? more(host) : more));
    if (options.content_disk_bytes !== undefined)
      await mountDisk(host, content_dir, options.content_disk_bytes);
    await options.prepare?.(host, content_dir);
    for (const image of options.seeds ?? []) await seed(image, content_dir);
    const { product = CHECKOUT } = options;
    const argv = [...(options.program ?? [...product, 'daemon']), '--config', config];
    const ready =
      options.program === undefined
        ? () => answersOn(socket)
        : async () => access(join(host.dir, 'up')).then(() => true);
    const daemon = this.#stack.use(
      await NodeDaemon.start({ host, argv, product, ready, socket, config }),
    );
    let containerd: LabContainerd | undefined;
    if (options.line !== undefined) {
      containerd = this.#stack.use(
        await LabContainerd.start(host, this.tools, {
          line: options.line,
          registry: this.registry.address,
          store: { kind: 'proxy', address: socket },
          igzip: options.igzip ?? true,
          debug: options.debug ?? false,
          ...(options.sharing_policy !== undefined && { sharing_policy: options.sharing_policy }),
        }),
      );
    }
    const node: SwarmNode = {
      host,
      daemon,
      content_dir,
      seeded_blobs: new Set((options.seeds ?? []).flatMap((i) => blobsOf(i).map((d) => d.digest)))
        .size,
      get containerd() {
        if (containerd === undefined) throw new Error(`${name} has no containerd`);
        return containerd;
      },
    };
    this.#nodes.push(node);
    return node;
  }

  /** Pushes an image and forgets the requests that took; resolves to its reference. */
  async push(image: TestImage, repository: string): Promise<string> {
    const ref = await this.registry.push(image, repository, 'v1');
    await this.registry.forget();
    return ref;
  }

  /** Waits until `node` is connected to exactly `peers` and knows that each of `holders` holds at least `blobs` blobs. */
  async meshed(
    node: SwarmNode,
    want: {
      readonly peers: number;
      readonly holders?: readonly SwarmNode[];
      readonly blobs?: number;
    },
  ): Promise<void> {
    const { peers, holders = [], blobs = 1 } = want;
    await untilTrue(`${node.host.name} in a mesh of ${peers} peers`, async () => {
      const status = await node.daemon.status();
      const known = (status.swarm?.peers ?? []).filter(isReady);
      if (known.length !== peers) return false;
      for (const holder of holders) {
        const id = await holder.daemon.peerId();
        const entry = known.find((peer) => peer.peerId === id);
        if (entry === undefined || entry.inventoryBlobs < blobs) return false;
      }
      return true;
    });
  }

  /** Waits until every peer `node` is connected to is known to hold at least `blobs` blobs. */
  async heldByAll(node: SwarmNode, blobs: number): Promise<void> {
    await untilTrue(`${blobs} blobs at every peer of ${node.host.name}`, async () => {
      const { swarm } = await node.daemon.status();
      return (swarm?.peers ?? []).every((peer) => peer.inventoryBlobs >= blobs);
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#stack.disposeAsync();
  }
}

interface LabParts {
  readonly tools: DebianTools;
  readonly network: LabNetwork;
  readonly hub: LabHost;
  readonly registry: LabRegistry;
}

/** The residue of this process' labs, for `assert.deepEqual(await leftBehind(), NOTHING_LEFT)`. */
export async function leftBehind(): Promise<object> {
  return residueOf();
}

/** What `leftBehind` gives when everything is gone. */
export const NOTHING_LEFT = NOTHING;

/** Why this machine cannot run host tests, or undefined when it can. In CI there is no excuse: it throws. */
export function hostReason(): string | undefined {
  const reason =
    process.getuid?.() === 0 ? undefined : 'host tests make network namespaces: run them as root';
  if (reason !== undefined && (process.env['CI'] ?? '') !== '') throw new Error(reason);
  return reason;
}

/** Connected, its inventory complete, and nothing held against it. */
function isReady(peer: { readonly state: string }): boolean {
  return peer.state === 'ready' || peer.state === 'connected';
}

async function mountDisk(host: LabHost, path: string, size: number): Promise<void> {
  await mkdir(path, { recursive: true });
  await host.run(['mount', '-t', 'tmpfs', '-o', `size=${size},mode=755`, 'disk', path]);
}

async function seed(image: TestImage, content_dir: string): Promise<void> {
  const blobs = join(content_dir, 'blobs/sha256');
  await mkdir(blobs, { recursive: true });
  for (const { digest } of blobsOf(image)) {
    await copyFile(blobPath(image, digest), join(blobs, digest.slice('sha256:'.length)));
  }
}

/** Every blob of an image, each once. */
export function blobsOf(image: TestImage): readonly TestImage['config'][] {
  const all = [image.target, image.manifest, image.config, ...image.layers];
  return [...new Map(all.map((blob) => [blob.digest, blob])).values()];
}

function toToml(own: ConfigLines, more: ConfigLines): string {
  const keyOf = (line: string): string => line.split('=')[0]!.trim();
  const sections = [...new Set([...Object.keys(own), ...Object.keys(more)])];
  return sections
    .map((name) => {
      const given = more[name] ?? [];
      const kept = (own[name] ?? []).filter((line) => !given.some((g) => keyOf(g) === keyOf(line)));
      return `[${name}]\n${[...kept, ...given].join('\n')}\n`;
    })
    .join('\n');
}
