import { createHash } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Clock, systemClock } from '../../src/base/clock.ts';
import { DaemonError } from '../../src/base/errors.ts';
import { type Digest, digestOf } from '../../src/oci/digest.ts';
import { pieceCount, pieceLength, pieceOffset } from '../../src/piece/layout.ts';
import type { PieceList } from '../../src/piece/piece-list.ts';
import type { SharedBlobs } from '../../src/store/blob-store.ts';
import { generateClusterKey } from '../../src/swarm/admission/cluster-key.ts';
import { parseConfig } from '../../src/config/load.ts';
import { swarmConfig } from '../../src/daemon-swarm-config.ts';
import type { SwarmConfig } from '../../src/swarm/config.ts';
import { Swarm, type SwarmStatus } from '../../src/swarm/swarm.ts';
import { MemoryLogger } from '../fakes/memory-logger.ts';
import { MemoryRegister } from '../fakes/memory-register.ts';

type ShareEvent = { readonly kind: 'added' | 'removed'; readonly digest: Digest };

/** Blobs in memory, shared with the swarm. Subclasses lie. */
export class MemoryBlobs implements SharedBlobs {
  readonly #blobs = new Map<Digest, Uint8Array>();
  readonly #listeners = new Set<(event: ShareEvent) => void>();
  reads = 0;

  put(bytes: Uint8Array): Digest {
    const digest = digestOf(bytes);
    this.#blobs.set(digest, bytes);
    for (const listener of this.#listeners) listener({ kind: 'added', digest });
    return digest;
  }

  remove(digest: Digest): void {
    this.#blobs.delete(digest);
    for (const listener of this.#listeners) listener({ kind: 'removed', digest });
  }

  shared(): Iterable<Digest> {
    return this.#blobs.keys();
  }

  onShared(listener: (event: ShareEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  async pieceList(digest: Digest): Promise<PieceList> {
    const bytes = this.#get(digest);
    const digests = Buffer.concat(
      Array.from({ length: pieceCount(bytes.length) }, (_, i) =>
        createHash('sha256').update(this.#piece(bytes, i)).digest(),
      ),
    );
    return { digest, size_bytes: bytes.length, digests };
  }

  async readPiece(digest: Digest, index: number): Promise<Uint8Array> {
    this.reads += 1;
    return this.#piece(this.#get(digest), index);
  }

  #get(digest: Digest): Uint8Array {
    const bytes = this.#blobs.get(digest);
    if (bytes === undefined) throw new DaemonError('not_found', `no blob ${digest}`);
    return bytes;
  }

  #piece(bytes: Uint8Array, index: number): Uint8Array {
    const at = pieceOffset(index);
    return bytes.slice(at, at + pieceLength(bytes.length, index));
  }
}

/** Resolves when the condition holds; looks after each turn of the event loop, until the test's own time limit. */
export async function eventually(
  test: { readonly signal: AbortSignal },
  condition: () => boolean,
): Promise<void> {
  while (!condition()) {
    test.signal.throwIfAborted();
    await new Promise((resolve) => setImmediate(resolve));
  }
}

/** The key all hosts of a test share unless it says otherwise. */
export const TEST_KEY = generateClusterKey();

/** The product's defaults, on a free port of loopback. */
export function loopbackConfig(): SwarmConfig {
  const about = { host_name: '', software_version: '' };
  const defaults = swarmConfig(parseConfig('', 'defaults', {}), about);
  return { ...defaults, listen: ['127.0.0.1'], port: 0 };
}

/** One swarm on loopback with its store, log and metrics. */
export class SwarmHost implements AsyncDisposable {
  readonly swarm: Swarm;
  readonly blobs: MemoryBlobs;
  readonly register: MemoryRegister;
  readonly logger: MemoryLogger;
  readonly #dir: string;
  #isClosed = false;

  private constructor(
    swarm: Swarm,
    parts: { blobs: MemoryBlobs; register: MemoryRegister; logger: MemoryLogger; dir: string },
  ) {
    this.swarm = swarm;
    this.blobs = parts.blobs;
    this.register = parts.register;
    this.logger = parts.logger;
    this.#dir = parts.dir;
  }

  static async start(
    config: Partial<SwarmConfig> = {},
    options: { key?: string; blobs?: MemoryBlobs; clock?: Clock } = {},
  ): Promise<SwarmHost> {
    const dir = await mkdtemp(join(tmpdir(), 'layerswarm-swarm-'));
    const cluster_key_file = join(dir, 'cluster.key');
    await writeFile(cluster_key_file, `${options.key ?? TEST_KEY}\n`, { mode: 0o600 });
    const blobs = options.blobs ?? new MemoryBlobs();
    const register = new MemoryRegister();
    const logger = new MemoryLogger();
    const swarm = await Swarm.start(
      { store: blobs, clock: options.clock ?? systemClock, logger, register },
      {
        ...loopbackConfig(),
        min_backoff_ms: 50,
        state_dir: join(dir, 'state'),
        cluster_key_file,
        ...config,
      },
      { signal: new AbortController().signal },
    );
    return new SwarmHost(swarm, { blobs, register, logger, dir });
  }

  /** Own address as a bootstrap entry. */
  get address(): string {
    const tcp = this.swarm.status().listen.find((a) => a.includes('/tcp/') || a.includes('/udp/'));
    const [, , ip, , port] = tcp!.split('/');
    return `${ip!}:${port!}`;
  }

  /** Resolves when the status satisfies the condition; it is looked at with each event of the mesh. */
  until(condition: (status: SwarmStatus) => boolean): Promise<SwarmStatus> {
    return new Promise((resolve) => {
      const look = (): void => {
        const status = this.swarm.status();
        if (!condition(status)) return;
        stop();
        resolve(status);
      };
      const later = (): void => void setImmediate(look);
      const stop = this.swarm.onPeer({ onJoined: later, onLeft: later, onSynced: later });
      look();
    });
  }

  /** Resolves when `count` peers are connected and their whole inventories are here. */
  ready(count: number): Promise<SwarmStatus> {
    return this.until(
      (s) => s.peers.length === count && s.peers.every((p) => p.state !== 'greeting'),
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    try {
      await this.swarm[Symbol.asyncDispose]();
    } finally {
      await rm(this.#dir, { recursive: true, force: true });
    }
  }
}
