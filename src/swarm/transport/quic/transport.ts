import { privateKeyToProtobuf } from '@libp2p/crypto/keys';
import {
  AbortError,
  type ComponentLogger,
  type Connection,
  type CreateListenerOptions,
  type DialTransportOptions,
  type Listener,
  type PrivateKey,
  type Startable,
  serviceCapabilities,
  type Transport,
  transportSymbol,
} from '@libp2p/interface';
import type { Multiaddr } from '@multiformats/multiaddr';
import { type Clock, systemClock } from '../../../base/clock.ts';
import { DaemonError } from '../../../base/errors.ts';
import { quicAddress, requireQuicAddress } from './address.ts';
import { orAbort } from './bounded-wait.ts';
import { defaultQuicConfig, type QuicConfig } from './config.ts';
import { QuicConnection } from './connection.ts';
import { QuicListener } from './listener.ts';
import { QuicMuxerFactory } from './muxer.ts';
import {
  type NativeClient,
  type NativeConfig,
  type NativeConnection,
  NativeQuic,
} from './native.ts';
import { assertDialledPeer, provenPeer } from './peer-identity.ts';

/** What the transport takes from libp2p. */
export type QuicComponents = { readonly privateKey: PrivateKey; readonly logger: ComponentLogger };

/**
 * libp2p's QUIC v1 transport on the native package @chainsafe/libp2p-quic, wire-compatible with it and with every other
 * libp2p QUIC. Use: `createLibp2p({ transports: [quic()] })`. Throws when the native part cannot be loaded.
 */
export function quic(
  config: Partial<QuicConfig> = {},
  clock: Clock = systemClock,
): (components: QuicComponents) => QuicTransport {
  return ({ privateKey, logger }) =>
    new QuicTransport({ privateKey, logger, clock }, { ...defaultQuicConfig, ...config });
}

/** Dials and listens on addresses with a literal IP; names must be resolved before. */
export class QuicTransport implements Transport, Startable {
  readonly [transportSymbol] = true as const;
  readonly [Symbol.toStringTag] = 'layerswarm-quic';
  readonly [serviceCapabilities] = ['@libp2p/transport'];
  readonly #modules: { readonly logger: ComponentLogger; readonly clock: Clock };
  readonly #config: QuicConfig;
  readonly #quic = NativeQuic.load();
  readonly #identity: NativeConfig;
  /** One dialling socket per family, opened at its first dial. */
  readonly #clients = new Map<4 | 6, NativeClient>();

  constructor(modules: QuicComponents & { readonly clock: Clock }, config: QuicConfig) {
    this.#modules = modules;
    this.#config = config;
    this.#identity = this.#quic.config(privateKeyToProtobuf(modules.privateKey), config);
  }

  start(): void {
    // Sockets open on demand.
  }

  /** Ends every dialled connection. */
  stop(): void {
    for (const client of this.#clients.values()) client.abort();
    this.#clients.clear();
  }

  listenFilter = (addresses: Multiaddr[]): Multiaddr[] =>
    addresses.filter((address) => quicAddress(address) !== undefined);

  dialFilter = (addresses: Multiaddr[]): Multiaddr[] => this.listenFilter(addresses);

  createListener({ upgrader }: CreateListenerOptions): Listener {
    const { logger, clock } = this.#modules;
    return new QuicListener(
      { quic: this.#quic, identity: this.#identity, upgrader, logger, clock },
      this.#config,
    );
  }

  /**
   * Connects and upgrades. The peer must prove the id that `ma` names, else `permission_denied`; without an answer within
   * `handshake_timeout_ms` it is `deadline_exceeded`, a failed handshake is `unavailable`. An abort of the signal is
   * libp2p's AbortError.
   */
  async dial(ma: Multiaddr, options: DialTransportOptions): Promise<Connection> {
    if (options.signal.aborted) throw new AbortError();
    const native = await this.#connect(ma, options.signal);
    const { logger, clock } = this.#modules;
    const connection = new QuicConnection({
      native,
      direction: 'outbound',
      log: logger.forComponent('layerswarm:quic:connection'),
    });
    try {
      const remotePeer = provenPeer(connection.remoteAddr);
      assertDialledPeer(ma, remotePeer);
      return await options.upgrader.upgradeOutbound(connection, {
        skipEncryption: true,
        skipProtection: true,
        remotePeer,
        muxerFactory: new QuicMuxerFactory(native, { logger, clock }, this.#config),
        signal: options.signal,
      });
    } catch (error) {
      connection.abort(error as Error);
      throw error;
    }
  }

  async #connect(ma: Multiaddr, signal: AbortSignal): Promise<NativeConnection> {
    const { family, ip, port } = requireQuicAddress(ma);
    const deadline = this.#modules.clock.timeout(this.#config.handshake_timeout_ms);
    const dialled = this.#client(family)
      .outboundConnection(ip, port)
      .catch((cause: unknown) => {
        throw new DaemonError(
          'unavailable',
          `no QUIC connection to ${ma.toString()}; is the host up and its UDP port open?`,
          { ip, port },
          { cause },
        );
      });
    return orAbort(
      dialled,
      AbortSignal.any([signal, deadline]),
      (late) => late.abort(),
      () =>
        signal.aborted
          ? new AbortError()
          : new DaemonError(
              'deadline_exceeded',
              `${ma.toString()} did not answer the QUIC handshake in time; is its UDP port open?`,
              { ip, port, waited_ms: this.#config.handshake_timeout_ms },
            ),
    );
  }

  #client(family: 4 | 6): NativeClient {
    const open = this.#clients.get(family);
    if (open !== undefined) return open;
    const client = this.#quic.client(this.#identity, family);
    this.#clients.set(family, client);
    return client;
  }
}
