// The product's daemon as a process on loopback, with directories of its own; no root, no containerd.
import { randomBytes } from 'node:crypto';
import { link, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fetchStatus } from '../../src/cli/control-client.ts';
import type { StatusResponse__Output } from '../../src/gen/layerswarm/control/v1/StatusResponse.ts';
import { answersOn } from '../host/lab/daemon.ts';
import { LabProcess } from '../host/lab/process.ts';
import { RUN_PREFIX } from '../host/lab/residue.ts';
import { until, untilTrue } from '../host/wait.ts';
import type { BlobFile } from './blob-file.ts';
import { productArgv } from './product.ts';

const STATUS_DEADLINE_MS = 5000;
/** Reading and hashing a blob found at start, and one round of peers, on a busy machine. */
const SHARE_DEADLINE_MS = 120_000;

export type DaemonOptions = {
  readonly name: string;
  /** Daemons it looks for. */
  readonly peers?: readonly BenchDaemon[];
  readonly transports?: readonly ('quic' | 'tcp')[];
  readonly swarm?: boolean;
  /** Blobs that lie in its store when it starts. */
  readonly blobs?: readonly BlobFile[];
  /** Bytes it keeps of what containerd has deleted. Default 0: a deleted blob is gone. */
  readonly cache_max_bytes?: number;
  /** Which gRPC server its socket has. Default: the product's. */
  readonly server?: 'h2' | 'grpc-js';
};

/** Directories for blobs and daemons of one bench run, with the key they share. Removed when closed. */
export class BenchDirectory implements AsyncDisposable {
  readonly path: string;
  readonly cluster_key = randomBytes(32).toString('hex');

  private constructor(path: string) {
    this.path = path;
  }

  static async create(): Promise<BenchDirectory> {
    return new BenchDirectory(await mkdtemp(join(tmpdir(), `${RUN_PREFIX}bench-`)));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.path, { recursive: true, force: true });
  }
}

/** A running daemon. */
export class BenchDaemon implements AsyncDisposable {
  readonly dir: string;
  readonly socket: string;
  readonly config: string;
  readonly #process: LabProcess;

  private constructor(dir: string, child: LabProcess) {
    this.dir = dir;
    this.socket = join(dir, 's');
    this.config = join(dir, 'config.toml');
    this.#process = child;
  }

  /** Starts it; resolves when its socket answers and, with a swarm, when peers can dial it. */
  static async start(directory: BenchDirectory, options: DaemonOptions): Promise<BenchDaemon> {
    const dir = join(directory.path, options.name);
    await writeDirectory(directory, dir, options);
    const child = await LabProcess.start({
      name: options.name,
      argv: await daemonArgv(join(dir, 'config.toml')),
      log: join(dir, 'log'),
    });
    const daemon = new BenchDaemon(dir, child);
    try {
      await child.ready(() => answersOn(daemon.socket), { deadline_ms: 20_000 });
      if (options.swarm !== false) {
        await untilTrue(`${options.name} listens`, async () => (await daemon.port()) > 0);
      }
      return daemon;
    } catch (error) {
      await child.stop(0);
      throw error;
    }
  }

  get pid(): number {
    return this.#process.pid;
  }

  async status(): Promise<StatusResponse__Output> {
    return fetchStatus(this.socket, AbortSignal.timeout(STATUS_DEADLINE_MS));
  }

  /** The port its peers dial; 0 while it does not listen. */
  async port(): Promise<number> {
    const { swarm } = await this.status();
    const [, , , , port] = (swarm?.listenAddresses[0] ?? '').split('/');
    return Number(port ?? 0);
  }

  /** Waits until a connected peer is known to hold `blobs` blobs. */
  async sees(blobs: number): Promise<void> {
    await untilTrue(
      `a peer with ${blobs} blobs`,
      async () => {
        const { swarm } = await this.status();
        return swarm?.peers.some((peer) => peer.inventoryBlobs >= blobs) ?? false;
      },
      { deadline_ms: SHARE_DEADLINE_MS },
    );
  }

  /** Waits until it is connected to that many peers. */
  async meets(peers: number): Promise<void> {
    await untilTrue(`${peers} peers`, async () => {
      const { swarm } = await this.status();
      return (swarm?.connectedPeers ?? 0) === peers;
    });
  }

  /** Waits until nothing is being fetched. */
  async rests(): Promise<void> {
    await until('no transfer', async () => {
      const { transfers } = await this.status();
      return transfers.some((t) => t.state === 'fetching') ? undefined : true;
    });
  }

  async stop(): Promise<void> {
    await this.#process.stop(10_000);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }
}

/** The daemon's command line. */
export async function daemonArgv(config: string): Promise<string[]> {
  return [...(await productArgv()), 'daemon', '--config', config];
}

/** Makes what the daemon `options.name` needs to start. */
export async function writeDirectory(
  directory: BenchDirectory,
  dir: string,
  options: DaemonOptions,
): Promise<void> {
  const blobs = join(dir, 'content/blobs/sha256');
  await mkdir(blobs, { recursive: true });
  for (const { path, digest } of options.blobs ?? []) {
    await link(path, join(blobs, digest.slice('sha256:'.length)));
  }
  await writeFile(join(dir, 'cluster.key'), `${directory.cluster_key}\n`, { mode: 0o600 });
  const ports = await Promise.all((options.peers ?? []).map((peer) => peer.port()));
  const list = (texts: readonly string[]): string => JSON.stringify(texts);
  await writeFile(
    join(dir, 'config.toml'),
    `[store]
content_directory = "${dir}/content"
state_directory = "${dir}/state"
cache_max_bytes = ${options.cache_max_bytes ?? 0}
disk_floor_bytes = 0
backfill_bytes_per_second = 0
[content]
socket_path = "${dir}/s"
drain_ms = 1000
server = "${options.server ?? 'h2'}"
[swarm]
enabled = ${options.swarm ?? true}
listen_addresses = ["127.0.0.1"]
listen_port = 0
transports = ${list(options.transports ?? ['quic', 'tcp'])}
bootstrap = ${list(ports.map((port) => `127.0.0.1:${port}`))}
cluster_key_file = "${dir}/cluster.key"
[metrics]
listen = ""
`,
  );
}
