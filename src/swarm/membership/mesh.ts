import type { Connection, Libp2p, Stream } from '@libp2p/interface';
import type { Multiaddr } from '@multiformats/multiaddr';
import type { Clock } from '../../base/clock.ts';
import type { Logger } from '../../ops/logger.ts';
import type { SourceFault } from '../../piece/exclusion.ts';
import type { FaultFacts } from '../../piece/source.ts';
import { AdmissionGate } from '../admission/admission-gate.ts';
import type { ClusterKeys } from '../admission/cluster-key.ts';
import type { SwarmConfig } from '../config.ts';
import type { ExchangedPeer, PeerState } from '../inventory/inventory-protocol.ts';
import {
  ADMISSION_DEADLINE_MS,
  ADMISSION_PROTOCOL,
  INVENTORY_PROTOCOL,
  MAX_ADDRESS_CHARS,
  MAX_PEER_ADDRESSES,
  PIECE_PROTOCOL,
  STREAMS_PER_PROTOCOL,
  WIRE_VERSION,
} from '../ground/limits.ts';
import type { CloseReason, ConnectResult, SwarmMetrics } from '../metrics.ts';
import type { OwnInventory } from '../inventory/own-inventory.ts';
import type { PeerId } from '../ground/peer-id.ts';
import type { Standings } from './standing.ts';
import { peerOf, withoutPeer } from './addresses.ts';
import { PeerSession } from './peer-session.ts';
import type { PieceBuffers } from '../exchange/piece-buffers.ts';
import type { PieceServer } from '../exchange/piece-server.ts';

/**
 * Two hosts that dial each other at the same time end with two connections. One that is older than an admission takes,
 * and a round trip, was not part of such a pair: the peer dials anew because it has lost the old one.
 */
const SIMULTANEOUS_MS = ADMISSION_DEADLINE_MS + 500;

export type MeshModules = {
  readonly node: Libp2p;
  readonly keys: ClusterKeys;
  readonly own: OwnInventory;
  readonly standings: Standings;
  readonly server: PieceServer;
  readonly buffers: PieceBuffers;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly metrics: SwarmMetrics;
  readonly state: () => PeerState;
};

/** What others hear of the mesh. */
export interface MeshEvents {
  onJoined(session: PeerSession): void;
  onLeft(session: PeerSession, reason: CloseReason): void;
  /** The peer's whole inventory is in memory. */
  onSynced(session: PeerSession): void;
  /** Peers that another peer knows. */
  onPeers(peers: readonly ExchangedPeer[]): void;
}

/** Every admitted, connected peer: one session each. */
export class Mesh {
  readonly #modules: MeshModules;
  readonly #config: SwarmConfig;
  readonly #gate: AdmissionGate;
  readonly #sessions = new Map<PeerId, PeerSession>();
  readonly #listeners = new Set<Partial<MeshEvents>>();

  constructor(modules: MeshModules, config: SwarmConfig) {
    this.#modules = modules;
    this.#config = config;
    this.#gate = new AdmissionGate({
      ...modules,
      self: modules.node.peerId.toString(),
      events: {
        precheck: (connection) => this.#precheck(connection),
        onProved: (connection) => this.#prove(connection),
        onAdmitted: (connection) => this.#greet(connection),
      },
    });
  }

  /** Registers the protocols. Call before the node starts. */
  async attach(): Promise<void> {
    const { node } = this.#modules;
    node.addEventListener('connection:open', (event) => this.#gate.open(event.detail));
    const limits = {
      maxInboundStreams: STREAMS_PER_PROTOCOL,
      maxOutboundStreams: STREAMS_PER_PROTOCOL,
    };
    await node.handle(ADMISSION_PROTOCOL, (stream, c) => this.#gate.accept(c, stream), limits);
    for (const protocol of [INVENTORY_PROTOCOL, PIECE_PROTOCOL]) {
      await node.handle(protocol, (stream, c) => this.#accept(protocol, stream, c), limits);
    }
  }

  subscribe(listener: Partial<MeshEvents>): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  get size(): number {
    return this.#sessions.size;
  }

  sessions(): Iterable<PeerSession> {
    return this.#sessions.values();
  }

  session(peer: PeerId): PeerSession | undefined {
    return this.#sessions.get(peer);
  }

  has(peer: PeerId): boolean {
    return this.#sessions.has(peer);
  }

  /**
   * Dials and waits for admission. Rejects as libp2p does when no connection comes about, and with the signal's reason
   * when it aborts first; then nothing stays open. An address with a peer id is that peer's: anybody else there is
   * `wrong_peer`.
   */
  async connect(
    address: Multiaddr,
    signal: AbortSignal,
  ): Promise<{ readonly result: ConnectResult; readonly peer: PeerId }> {
    // Without the id and with force: else libp2p joins all dials to one peer into one, and hands out a connection to it
    // that may be dead.
    const connection = await this.#modules.node.dial(withoutPeer(address), { signal, force: true });
    const peer = connection.remotePeer.toString() as PeerId;
    const named = peerOf(address);
    if (named !== undefined && named !== peer) {
      connection.abort(new Error('another peer than the one dialled'));
      return { result: 'wrong_peer', peer };
    }
    const onAbort = (): void => connection.abort(signal.reason as Error);
    signal.addEventListener('abort', onAbort, { once: true });
    if (signal.aborted) onAbort();
    const result = await this.#gate.outcome(connection);
    signal.removeEventListener('abort', onAbort);
    if (result === 'duplicate' || result === 'banned' || result === 'full') {
      connection.abort(new Error(`connection refused: ${result}`));
    }
    if (result !== 'ok') signal.throwIfAborted();
    return { result, peer };
  }

  /** True while the peer must not be dialled, whatever its addresses promise. */
  isBanned(peer: PeerId): boolean {
    return this.#modules.standings.banned_ms(peer) > 0;
  }

  /** Notes a fault of a peer; a ban closes its connection. */
  blame(peer: PeerId, fault: SourceFault, facts?: FaultFacts): void {
    if (!this.#modules.standings.fault(peer, fault, facts)) return;
    this.#modules.logger.warn({ peer, fault }, 'peer banned');
    this.#sessions.get(peer)?.end('banned');
  }

  /** Says farewell to every peer. */
  close(): void {
    for (const session of [...this.#sessions.values()]) session.end('shutdown', 'shutdown');
  }

  #precheck(connection: Connection): ConnectResult | undefined {
    const peer = connection.remotePeer.toString() as PeerId;
    if (this.isBanned(peer)) return 'banned';
    if (connection.direction === 'outbound' && this.#sessions.has(peer)) return 'duplicate';
    const isKnown = this.#sessions.has(peer);
    return !isKnown && this.#sessions.size >= this.#config.max_peers ? 'full' : undefined;
  }

  /** The peer may use the mesh now. Of two connections to one peer both sides keep the same one. */
  #prove(connection: Connection): void {
    const peer = connection.remotePeer.toString() as PeerId;
    const old = this.#sessions.get(peer);
    if (old !== undefined) {
      if (this.#keepsOld(old, connection)) {
        connection.abort(new Error('another connection to this peer is kept'));
        return;
      }
      old.end('replaced');
    }
    const session = new PeerSession(
      {
        ...this.#modules,
        connection,
        events: {
          onHello: (s) => this.#joined(s),
          onSynced: (s) => this.#tell((l) => l.onSynced?.(s)),
          onPeers: (peers) => this.#tell((l) => l.onPeers?.(peers)),
          isReplaced: (s) => this.#isReplaced(s),
          onEnd: (s, reason) => this.#ended(s, reason),
        },
      },
      this.#config,
    );
    this.#sessions.set(peer, session);
  }

  /** Of two that cross, the one dialled by the smaller id stays; else the new one, because the peer lost the old. */
  #keepsOld(old: PeerSession, fresh: Connection): boolean {
    if (old.connection.direction === fresh.direction) return fresh.direction === 'outbound';
    if (this.#modules.clock.now_ms() - old.since_ms > SIMULTANEOUS_MS) return false;
    const isOursPreferred = this.#modules.node.peerId.toString() < old.id;
    return (old.connection.direction === 'outbound') === isOursPreferred;
  }

  #greet(connection: Connection): void {
    const session = this.#sessions.get(connection.remotePeer.toString() as PeerId);
    if (session?.connection !== connection) return;
    session.start({
      protocol: WIRE_VERSION,
      software: this.#config.software_version.slice(0, 64),
      zone: this.#config.zone.slice(0, 64),
      host: this.#config.host_name.slice(0, 64),
      listen: this.advertised(),
    });
  }

  /** Own addresses as peers shall dial them. */
  advertised(): string[] {
    const addresses = this.#modules.node.getMultiaddrs();
    // Loopback leads nowhere from another host; link-local would need the other host's interface name.
    const isLocal = (address: Multiaddr): boolean =>
      /^(127\.|169\.254\.|::1$|fe[89ab])/.test(address.getComponents()[0]?.value ?? '');
    const outer = addresses.filter((address) => !isLocal(address));
    return (outer.length > 0 ? outer : addresses)
      .map((address) => address.toString())
      .filter((text) => text.length <= MAX_ADDRESS_CHARS)
      .slice(0, MAX_PEER_ADDRESSES);
  }

  #joined(session: PeerSession): void {
    const newcomer: ExchangedPeer = { id: session.id, addresses: [...session.addresses] };
    for (const other of this.#sessions.values()) {
      if (other === session || other.hello === undefined) continue;
      other.exchange(newcomer);
      session.exchange({ id: other.id, addresses: [...other.addresses] });
    }
    this.#modules.logger.debug({ peer: session.id, transport: session.transport }, 'peer joined');
    this.#tell((l) => l.onJoined?.(session));
  }

  /** The peer ends the old connection as soon as the new one is good for it, which may be before it is good for us. */
  #isReplaced(session: PeerSession): boolean {
    const current = this.#sessions.get(session.id);
    return (current !== undefined && current !== session) || this.#gate.isPending(session.id);
  }

  #ended(session: PeerSession, reason: CloseReason): void {
    if (this.#sessions.get(session.id) === session) this.#sessions.delete(session.id);
    this.#modules.metrics.closed.inc({ reason });
    this.#modules.logger.debug({ peer: session.id, reason }, 'peer left');
    this.#tell((l) => l.onLeft?.(session, reason));
  }

  #accept(protocol: string, stream: Stream, connection: Connection): void {
    const session = this.#sessions.get(connection.remotePeer.toString() as PeerId);
    if (session?.connection === connection) session.accept(protocol, stream);
    else stream.abort(new Error('connection is not admitted'));
  }

  #tell(act: (listener: Partial<MeshEvents>) => void): void {
    for (const listener of [...this.#listeners]) act(listener);
  }
}
