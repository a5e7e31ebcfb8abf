import type { Libp2p } from '@libp2p/interface';
import type { Clock } from '../base/clock.ts';
import type { Digest } from '../oci/digest.ts';
import type { Logger } from '../ops/logger.ts';
import type { MetricRegister } from '../ops/register.ts';
import type { PieceSource, SourceFinder } from '../piece/source.ts';
import type { SharedBlobs } from '../store/blob-store.ts';
import { OwnAddresses, type Resolve, resolveHost } from './membership/addresses.ts';
import { Bootstrap, type TargetStatus } from './membership/bootstrap.ts';
import { ClusterKeys } from './admission/cluster-key.ts';
import type { SwarmConfig } from './config.ts';
import { loadIdentity } from './transport/identity.ts';
import { Mesh, type MeshEvents } from './membership/mesh.ts';
import { type Explanation, MeshDirectory } from './membership/mesh-directory.ts';
import { createSwarmMetrics } from './metrics.ts';
import { createNode, startNode } from './transport/node.ts';
import { OwnInventory } from './inventory/own-inventory.ts';
import type { PeerDirectory } from './peer-directory.ts';
import type { PeerId } from './ground/peer-id.ts';
import { type Ban, Standings } from './membership/standing.ts';
import { PieceBuffers } from './exchange/piece-buffers.ts';
import { PieceServer } from './exchange/piece-server.ts';
import { type PeerStatus, peerStatus } from './membership/peer-status.ts';
import { QuickAnswers } from './exchange/quick-answers.ts';
import { UploadRate } from './exchange/upload-rate.ts';
import { UploadSlots } from './exchange/upload-slots.ts';

export type SwarmModules = {
  readonly store: SharedBlobs;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly register: MetricRegister;
  /** The machine's resolver by default. */
  readonly resolve?: Resolve;
  /** For jitter; `Math.random` by default. */
  readonly random?: () => number;
};

/** The swarm as an operator sees it. */
export type SwarmStatus = {
  readonly id: string;
  /** alone = nobody connected yet, a normal state; degraded = some configured address leads to nobody. */
  readonly state: 'alone' | 'connected' | 'degraded';
  readonly listen: readonly string[];
  readonly peers: readonly PeerStatus[];
  readonly bans: readonly Ban[];
  /** Every address tried, with what became of it. */
  readonly addresses: readonly TargetStatus[];
  readonly announced_blobs: number;
  readonly uploads: number;
};

type Parts = {
  readonly node: Libp2p;
  readonly mesh: Mesh;
  readonly own: OwnInventory;
  readonly standings: Standings;
  readonly slots: UploadSlots;
  readonly directory: MeshDirectory;
  readonly bootstrap: Bootstrap;
  readonly health: { disk_full: boolean };
};

/**
 * The swarm room's face. Own blobs are announced and served from the moment the store shares them; other hosts' blobs
 * are found by `find`, from memory. Disposing it says farewell to every peer and closes all sockets.
 */
export class Swarm implements SourceFinder, AsyncDisposable {
  readonly #parts: Parts;
  readonly #clock: Clock;
  readonly #stop = new AbortController();
  readonly #running: Promise<void>;
  readonly #unsubscribe: readonly (() => void)[];

  /**
   * Reads identity and cluster key, listens, and begins to look for peers; does not wait for any. `config_invalid` for
   * files, addresses or ports that cannot be used: without a cluster key there is no swarm. The signal ends the start
   * and, later, the swarm's background work. A start that fails leaves no socket open.
   */
  static async start(
    modules: SwarmModules,
    config: SwarmConfig,
    options: { signal: AbortSignal },
  ): Promise<Swarm> {
    const keys = await ClusterKeys.load(config.cluster_key_file);
    const identity = await loadIdentity(config.state_dir);
    options.signal.throwIfAborted();
    const node = await createNode(identity, config);
    try {
      const parts = assemble(node, keys, modules, config);
      await parts.mesh.attach();
      await startNode(node, config);
      modules.logger.info(
        { peer: node.peerId.toString(), listen: parts.mesh.advertised() },
        'swarm listens',
      );
      return new Swarm(parts, modules, options.signal);
    } catch (error) {
      await node.stop();
      throw error;
    }
  }

  private constructor(parts: Parts, modules: SwarmModules, signal: AbortSignal) {
    this.#parts = parts;
    this.#clock = modules.clock;
    const { own, mesh, bootstrap } = parts;
    const unshare = modules.store.onShared(({ kind, digest }) => {
      if (kind === 'added') own.add(digest);
      else own.remove(digest);
    });
    for (const digest of modules.store.shared()) own.add(digest);
    const forget = mesh.subscribe({
      onJoined: (session) => {
        if (mesh.size === 1) modules.logger.info({ peers: 1 }, 'first peer connected');
        bootstrap.learn([{ id: session.id, addresses: [...session.addresses] }]);
      },
      onLeft: (session, reason) => bootstrap.lost(session.id, reason),
      onPeers: (peers) => bootstrap.learn(peers),
    });
    this.#unsubscribe = [unshare, forget];
    this.#running = bootstrap.run(AbortSignal.any([signal, this.#stop.signal]));
  }

  /** Own peer id. */
  get id(): PeerId {
    return this.#parts.node.peerId.toString() as PeerId;
  }

  /** Who holds what. */
  get directory(): PeerDirectory {
    return this.#parts.directory;
  }

  find(digest: Digest, size_bytes: number): readonly PieceSource[] {
    return this.#parts.directory.find(digest, size_bytes);
  }

  /** Why each peer is or is not a candidate for the blob. */
  explain(digest: Digest): readonly Explanation[] {
    return this.#parts.directory.explain(digest);
  }

  /** True: the disk is below its floor. Nothing more is announced; serving and pulling go on. */
  setDiskFull(full: boolean): void {
    this.#parts.health.disk_full = full;
    this.#parts.own.mute(full);
  }

  /** Hears of peers as they come and go. Returns the unsubscribe function. */
  onPeer(listener: Partial<MeshEvents>): () => void {
    return this.#parts.mesh.subscribe(listener);
  }

  /** Resolves when the background work has ended; rejects when it failed, which must not happen. */
  get done(): Promise<void> {
    return this.#running;
  }

  status(): SwarmStatus {
    const { node, mesh, own, standings, slots, bootstrap } = this.#parts;
    return {
      id: this.id,
      state: mesh.size === 0 ? 'alone' : bootstrap.isWhole() ? 'connected' : 'degraded',
      listen: node.getMultiaddrs().map((address) => address.toString()),
      peers: [...mesh.sessions()].map((s) => peerStatus(s, standings, this.#clock)),
      bans: standings.banned(),
      addresses: bootstrap.status(),
      announced_blobs: own.size,
      uploads: slots.used,
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#stop.signal.aborted) return;
    this.#stop.abort(new Error('swarm stops'));
    try {
      for (const unsubscribe of this.#unsubscribe) unsubscribe();
      this.#parts.mesh.close();
      await this.#running;
    } finally {
      // Also of a swarm that is broken: its sockets are the next one's.
      await this.#parts.node.stop();
    }
  }
}

function assemble(
  node: Libp2p,
  keys: ClusterKeys,
  modules: SwarmModules,
  config: SwarmConfig,
): Parts {
  const { clock, logger, store } = modules;
  const own = new OwnInventory();
  const metrics = createSwarmMetrics(modules.register, {
    peers: () => mesh.size,
    announced: () => own.size,
  });
  const standings = new Standings({ clock, metrics }, config);
  const rate = new UploadRate({ clock }, { bytes_per_second: config.max_upload_bytes_per_second });
  const slots = new UploadSlots(
    { clock },
    {
      slots: Math.min(config.upload_slots, rate.uploads),
      max_waiting: config.max_waiting_uploads,
    },
  );
  const quick = new QuickAnswers();
  const server = new PieceServer({ store, slots, quick, rate, clock, metrics, logger });
  const health = { disk_full: false };
  const state = () => ({ disk_full: health.disk_full, load: slots.load });
  const mesh: Mesh = new Mesh(
    {
      node,
      keys,
      own,
      standings,
      server,
      buffers: new PieceBuffers(),
      clock,
      logger,
      metrics,
      state,
    },
    config,
  );
  const directory = new MeshDirectory({ mesh, own, standings, metrics }, config);
  const bootstrap = new Bootstrap(
    {
      mesh,
      own: new OwnAddresses({ listening: () => node.getMultiaddrs() }),
      self: node.peerId.toString(),
      resolve: modules.resolve ?? resolveHost,
      random: modules.random ?? Math.random,
      clock,
      logger,
      metrics,
    },
    config,
  );
  return { node, mesh, own, standings, slots, directory, bootstrap, health };
}
