import {
  type ComponentLogger,
  type Listener,
  type ListenerEvents,
  type Logger,
  setMaxListeners,
  TypedEventEmitter,
  type Upgrader,
} from '@libp2p/interface';
import type { Multiaddr } from '@multiformats/multiaddr';
import type { Clock } from '../../../base/clock.ts';
import { DaemonError } from '../../../base/errors.ts';
import { reachableAddresses, requireQuicAddress } from './address.ts';
import { orAbort } from './bounded-wait.ts';
import type { QuicConfig } from './config.ts';
import { QuicConnection } from './connection.ts';
import { QuicMuxerFactory } from './muxer.ts';
import type { NativeConfig, NativeConnection, NativeQuic, NativeServer } from './native.ts';
import { provenPeer } from './peer-identity.ts';

/** Pause of one accept loop after a failed handshake. */
const RETRY_PAUSE_MS = 10;

type Modules = {
  readonly quic: NativeQuic;
  readonly identity: NativeConfig;
  readonly upgrader: Pick<Upgrader, 'upgradeInbound'>;
  readonly logger: ComponentLogger;
  readonly clock: Clock;
};

type Listening = {
  readonly server: NativeServer;
  readonly family: 4 | 6;
  readonly ip: string;
  readonly port: number;
};

/**
 * Accepts QUIC connections on one address. `close` ends every connection accepted here. How many connections a host
 * takes is decided by libp2p's connection manager, at the upgrade.
 */
export class QuicListener extends TypedEventEmitter<ListenerEvents> implements Listener {
  readonly #modules: Modules;
  readonly #config: QuicConfig;
  readonly #log: Logger;
  readonly #connections = new Set<QuicConnection>();
  readonly #closing = new AbortController();
  #listening: Listening | undefined;

  constructor(modules: Modules, config: QuicConfig) {
    super();
    this.#modules = modules;
    this.#config = config;
    this.#log = modules.logger.forComponent('layerswarm:quic:listener');
    // Each upgrade under way listens to it.
    setMaxListeners(Infinity, this.#closing.signal);
  }

  /** Binds and accepts. Port 0 takes a free one. Throws `unavailable` when the address cannot be bound. */
  listen(ma: Multiaddr): Promise<void> {
    return Promise.resolve().then(() => {
      const { family, ip, port } = requireQuicAddress(ma);
      const server = this.#bind(ip, port, ma);
      this.#listening = { server, family, ip, port: server.port() };
      for (let n = 0; n < this.#config.handshakes_at_once; n++) void this.#accept(server);
      this.safeDispatchEvent('listening');
    });
  }

  /** The bound addresses with their real port; a wildcard address shows as those of the host's interfaces. */
  getAddrs(): Multiaddr[] {
    if (this.#listening === undefined) return [];
    const { family, ip, port } = this.#listening;
    return reachableAddresses(family, ip, port);
  }

  updateAnnounceAddrs(): void {
    // QUIC announces what it listens on; nothing depends on the announced addresses.
  }

  /** Waits at most `close_timeout_ms` for the socket to drain and be released. */
  async close(): Promise<void> {
    const listening = this.#listening;
    if (listening === undefined) return;
    this.#listening = undefined;
    this.#closing.abort();
    for (const connection of [...this.#connections]) {
      connection.abort(new DaemonError('unavailable', 'the QUIC listener is closed'));
    }
    const deadline = this.#modules.clock.timeout(this.#config.close_timeout_ms);
    await orAbort(listening.server.abort(), deadline, () => undefined).catch((error: unknown) =>
      // The native side releases it later on its own; the caller has nothing more to do.
      this.#log('socket not released in time - %e', error),
    );
    this.safeDispatchEvent('close');
  }

  #bind(ip: string, port: number, ma: Multiaddr): NativeServer {
    try {
      return this.#modules.quic.listen(this.#modules.identity, ip, port);
    } catch (cause) {
      throw new DaemonError(
        'unavailable',
        `cannot listen on ${ma.toString()}; is the port taken or the address of another host?`,
        { ip, port },
        { cause },
      );
    }
  }

  /** One of `handshakes_at_once` loops: the native call takes a connection and finishes its handshake before it returns. */
  async #accept(server: NativeServer): Promise<void> {
    const { signal } = this.#closing;
    while (!signal.aborted) {
      try {
        await this.#upgrade(await server.inboundConnection());
      } catch (error) {
        if (this.#closing.signal.aborted) return;
        // A peer that fails its handshake or its upgrade costs only itself. The pause keeps a socket that fails at once,
        // again and again, from taking the processor.
        this.#log('inbound connection failed - %e', error);
        await this.#modules.clock.sleep(RETRY_PAUSE_MS, { signal }).catch(() => undefined);
      }
    }
  }

  async #upgrade(native: NativeConnection): Promise<void> {
    if (this.#closing.signal.aborted) {
      native.abort();
      return;
    }
    const { logger, clock, upgrader } = this.#modules;
    const connection = new QuicConnection({
      native,
      direction: 'inbound',
      log: logger.forComponent('layerswarm:quic:connection'),
    });
    this.#connections.add(connection);
    connection.addEventListener('close', () => this.#connections.delete(connection), {
      once: true,
    });
    try {
      await upgrader.upgradeInbound(connection, {
        skipEncryption: true,
        skipProtection: true,
        remotePeer: provenPeer(connection.remoteAddr),
        muxerFactory: new QuicMuxerFactory(native, { logger, clock }, this.#config),
        signal: this.#closing.signal,
      });
    } catch (error) {
      connection.abort(error as Error);
      throw error;
    }
  }
}
