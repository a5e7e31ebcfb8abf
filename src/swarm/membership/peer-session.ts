import type { Connection, Stream } from '@libp2p/interface';
import type { Clock } from '../../base/clock.ts';
import { hasCode } from '../../base/errors.ts';
import type { Logger } from '../../ops/logger.ts';
import { transportOf } from './addresses.ts';
import { LifeWatch } from './life-watch.ts';
import type { SwarmConfig } from '../config.ts';
import { FramedStream } from '../transport/framed-stream.ts';
import {
  encodeInventory,
  type ExchangedPeer,
  type Hello,
  type HelloFacts,
  INVENTORY_HEADER_BYTES,
  type PeerState,
} from '../inventory/inventory-protocol.ts';
import { InventoryReceiver } from '../inventory/inventory-receiver.ts';
import { InventorySender } from '../inventory/inventory-sender.ts';
import {
  INVENTORY_PROTOCOL,
  OPEN_STREAM_DEADLINE_MS,
  PIECE_PROTOCOL,
  STREAMS_PER_PROTOCOL,
} from '../ground/limits.ts';
import type { CloseReason, SwarmMetrics } from '../metrics.ts';
import type { OwnInventory } from '../inventory/own-inventory.ts';
import type { PeerId } from '../ground/peer-id.ts';
import type { Standings } from './standing.ts';
import type { PieceBuffers } from '../exchange/piece-buffers.ts';
import { PieceClient } from '../exchange/piece-client.ts';
import type { PieceServer } from '../exchange/piece-server.ts';
import { PrefixSet } from '../inventory/prefix-set.ts';

/** Time a refusal gets to reach the peer before the connection is cut, in ms. */
const FAREWELL_MS = 500;
/** Asked for when a peer is silent. Nobody serves it: peers of every version answer just that, at once. */
const PROBE_PROTOCOL = '/layerswarm/probe/1';

export type SessionModules = {
  readonly connection: Connection;
  readonly own: OwnInventory;
  readonly standings: Standings;
  readonly server: PieceServer;
  readonly buffers: PieceBuffers;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly metrics: SwarmMetrics;
  readonly events: SessionEvents;
  readonly state: () => PeerState;
};

/** What the mesh hears of a session. */
interface SessionEvents {
  /** The peer said who it is. */
  onHello(session: PeerSession): void;
  /** Its whole inventory is here. */
  onSynced(session: PeerSession): void;
  onPeers(peers: readonly ExchangedPeer[]): void;
  /** True when another connection to the same peer has taken this one's place or is about to. */
  isReplaced(session: PeerSession): boolean;
  /** Called once. The session is out of every list from this moment. */
  onEnd(session: PeerSession, reason: CloseReason): void;
}

/** One admitted connection: inventories both ways, pieces both ways, signs of life. */
export class PeerSession {
  readonly id: PeerId;
  readonly connection: Connection;
  readonly transport: 'quic' | 'tcp';
  readonly prefixes: PrefixSet;
  readonly pieces: PieceClient;
  readonly since_ms: number;
  hello: Hello | undefined;
  state: PeerState = { disk_full: false, load: 0 };
  received_bytes = 0;
  sent_bytes = 0;
  /** When the peer last took bytes of ours; undefined = never. */
  served_ms: number | undefined;
  synced = false;
  readonly #modules: SessionModules;
  readonly #gone = new AbortController();
  readonly #life: LifeWatch;
  readonly #waiting = new Map<string, ExchangedPeer>();
  #sender: InventorySender | undefined;
  #framed: FramedStream | undefined;
  #hasInventory = false;
  #ended: CloseReason | undefined;

  constructor(modules: SessionModules, config: SwarmConfig) {
    this.#modules = modules;
    this.connection = modules.connection;
    this.id = modules.connection.remotePeer.toString() as PeerId;
    this.transport = transportOf(modules.connection.remoteAddr);
    this.prefixes = new PrefixSet({ max: config.max_prefixes_per_peer });
    this.since_ms = modules.clock.now_ms();
    this.#life = new LifeWatch(
      {
        clock: modules.clock,
        ask: (signal) => this.#answers(signal),
        onPing: () => {
          this.#sender?.ping();
          this.#sender?.state(modules.state());
        },
        onSilent: () => this.end('silent'),
      },
      config,
    );
    this.pieces = new PieceClient({
      clock: modules.clock,
      buffers: modules.buffers,
      open: (signal) => this.#open(PIECE_PROTOCOL, signal),
      events: {
        onReceived: (_bytes, _elapsed_ms, first_ms) =>
          modules.standings.of(this.id).answered(first_ms),
        onBytes: (bytes) => {
          this.received_bytes += bytes;
          modules.standings.of(this.id).heard(bytes);
          modules.metrics.downloaded.inc({ transport: this.transport }, bytes);
        },
        onProtocolError: (error) => this.#broken(error),
      },
    });
    modules.connection.addEventListener('close', () => this.end('gone'));
  }

  /** Aborts when the session has ended. */
  get signal(): AbortSignal {
    return this.#gone.signal;
  }

  /** Why the session ended; undefined while it lives. `replaced` is nobody's fault: the peer goes on on its new connection. */
  get ended(): CloseReason | undefined {
    return this.#ended;
  }

  /** The peer's own addresses, as it says. */
  get addresses(): readonly string[] {
    return this.hello?.listen ?? [];
  }

  /** Opens our inventory stream and watches the peer. Returns at once; ends the session when anything fails. */
  start(hello: HelloFacts): void {
    this.#startInventory(hello).catch((error: unknown) => {
      this.#modules.logger.debug({ peer: this.id, err: error }, 'inventory stream not opened');
      this.end('gone');
    });
    void this.#life.run(this.#gone.signal);
  }

  /** A stream the peer opened. */
  accept(protocol: string, stream: Stream): void {
    if (this.#gone.signal.aborted) {
      stream.abort(new Error('session ended'));
    } else if (protocol === PIECE_PROTOCOL) {
      this.#modules.server.serve(stream, {
        id: this.id,
        transport: this.transport,
        onSent: (bytes) => {
          this.sent_bytes += bytes;
          this.served_ms = this.#modules.clock.now_ms();
        },
        onProtocolError: (error) => this.#broken(error),
      });
    } else if (this.#hasInventory) {
      stream.abort(new Error('one inventory stream per peer'));
    } else {
      this.#hasInventory = true;
      this.#receiveInventory(stream);
    }
    // After the room that reads the stream, so that nothing is handed out before it listens.
    this.#listen(stream);
  }

  /** Tells the peer of another one. */
  exchange(peer: ExchangedPeer): void {
    if (this.#sender === undefined) this.#waiting.set(peer.id, peer);
    else this.#sender.exchange(peer);
  }

  /** Ends the session and its connection. Idempotent. */
  end(reason: CloseReason, farewell?: 'protocol_version' | 'protocol_error' | 'shutdown'): void {
    if (this.#ended !== undefined) return;
    const { events } = this.#modules;
    this.#ended = reason === 'gone' && events.isReplaced(this) ? 'replaced' : reason;
    const error = new Error(`session ended: ${this.#ended}`);
    this.#gone.abort(error);
    this.pieces.close(error);
    events.onEnd(this, this.#ended);
    if (farewell === undefined) {
      this.connection.abort(error);
      return;
    }
    this.#framed?.sendNow(encodeInventory('refuse', { reason: farewell }));
    this.connection
      .close({ signal: this.#modules.clock.timeout(FAREWELL_MS) })
      .catch(() => this.connection.abort(error));
  }

  async #open(protocol: string, signal: AbortSignal): Promise<Stream> {
    const stream = await this.connection.newStream(protocol, {
      signal: AbortSignal.any([signal, this.#gone.signal]),
      maxOutboundStreams: STREAMS_PER_PROTOCOL,
    });
    // The peer says nothing on a stream of ours before it is asked.
    this.#listen(stream);
    return stream;
  }

  /** Whatever the peer sends, on whatever stream, is a sign of life: pieces may leave no room for pings on a slow link. */
  #listen(stream: Stream): void {
    stream.addEventListener('message', () => this.#life.heard());
  }

  async #startInventory(hello: HelloFacts): Promise<void> {
    const { clock, own, state } = this.#modules;
    const stream = await this.#open(INVENTORY_PROTOCOL, clock.timeout(OPEN_STREAM_DEADLINE_MS));
    const framed = new FramedStream(stream, {
      header_bytes: INVENTORY_HEADER_BYTES,
      // The peer answers on a stream of its own: whatever comes here is read past.
      onHeader: () => ({ length: 0, done: () => undefined }),
      onEnd: (error) => this.#streamEnded(error),
    });
    this.#framed = framed;
    this.#sender = new InventorySender({ own, framed, clock });
    this.#sender.start(hello, state());
    for (const peer of this.#waiting.values()) this.#sender.exchange(peer);
    this.#waiting.clear();
  }

  #receiveInventory(stream: Stream): void {
    const { clock, events } = this.#modules;
    new InventoryReceiver({
      stream,
      clock,
      prefixes: this.prefixes,
      events: {
        onFrame: () => this.#life.heard(),
        onHello: (hello) => {
          this.hello = hello;
          events.onHello(this);
        },
        onSynced: () => {
          this.synced = true;
          events.onSynced(this);
        },
        onState: (state) => {
          this.state = state;
        },
        onPeers: (peers) => events.onPeers(peers),
        onRefusal: (refusal) => {
          this.#modules.logger.debug(
            { peer: this.id, reason: refusal.reason },
            'peer says farewell',
          );
          this.end(refusal.reason === 'shutdown' ? 'goodbye' : 'refused');
        },
        onEnd: (error) => this.#streamEnded(error),
      },
    });
  }

  /** Asks for a protocol that nobody has: the answer "no" is the sign of life of a peer that has said who it is. */
  async #answers(signal: AbortSignal): Promise<boolean> {
    if (this.hello === undefined) return false;
    try {
      const stream = await this.#open(PROBE_PROTOCOL, signal);
      stream.abort(new Error('only asked whether the peer lives'));
      return true;
    } catch (error) {
      return error instanceof Error && error.name === 'UnsupportedProtocolError';
    }
  }

  #streamEnded(error: Error): void {
    if (hasCode(error, 'protocol_error')) this.#broken(error);
    else this.end('gone');
  }

  #broken(error: Error): void {
    if (this.#ended !== undefined) return;
    const reason =
      hasCode(error, 'protocol_error') && error.facts['reason'] === 'protocol_version'
        ? 'protocol_version'
        : 'protocol_error';
    this.#modules.logger.warn(
      { peer: this.id, reason },
      'peer broke the protocol, connection closed',
    );
    // Another version is nobody's fault; anything else of an admitted peer is.
    if (reason === 'protocol_error') this.#modules.standings.fault(this.id, 'protocol');
    this.end(reason, reason);
  }
}
