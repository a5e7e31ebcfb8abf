import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { type AddressInfo, createServer, isIP } from 'node:net';
import type { ComponentLogger, Libp2p, Logger, PrivateKey } from '@libp2p/interface';
import { noise } from '@libp2p/noise';
import { tcp } from '@libp2p/tcp';
import { tls } from '@libp2p/tls';
import { yamux } from '@libp2p/yamux';
import { createLibp2p } from 'libp2p';
import { DaemonError, errnoOf } from '../../base/errors.ts';
import type { SwarmConfig } from '../config.ts';
import { MAX_PEER_ADDRESSES, MAX_PENDING_ADMISSIONS } from '../ground/limits.ts';
import { quic } from './quic/transport.ts';

/**
 * Yamux windows: the read buffer of a stream aborts it beyond 4 MiB, and libp2p's own largest window of 16 MiB would
 * let a slow reader get there.
 */
const STREAM_WINDOW_BYTES = 3 * 1024 * 1024;
/** Addresses of one host that are dialled at a time, in the mean: two transports and two families. More wait for a place. */
const ADDRESSES_AT_ONCE = 4;
/** Tries to find a port that is free for both UDP and TCP. */
const PORT_TRIES = 8;

type NodeConfig = Pick<
  SwarmConfig,
  | 'listen'
  | 'port'
  | 'announce'
  | 'quic'
  | 'tcp'
  | 'max_peers'
  | 'max_parallel_dials'
  | 'dial_timeout_ms'
>;

/**
 * The libp2p node, not started: identity, transports and limits, and nothing that acts by itself (no identify, no
 * pings, no reconnects: admission, inventory and bootstrap do those).
 */
export async function createNode(privateKey: PrivateKey, config: NodeConfig): Promise<Libp2p> {
  const port = config.port === 0 ? await freePort(config) : config.port;
  const node = await createLibp2p({
    privateKey,
    start: false,
    logger: silentLogger,
    addresses: {
      listen: listenAddresses(config, port),
      announce: [...config.announce],
    },
    transports: [
      ...(config.quic ? [quic()] : []),
      ...(config.tcp ? [tcp({ maxConnections: config.max_peers + MAX_PENDING_ADMISSIONS })] : []),
    ],
    connectionEncrypters: [tls(), noise()],
    streamMuxers: [
      yamux({
        streamOptions: { maxStreamWindowSize: STREAM_WINDOW_BYTES },
        maxInboundStreams: 64,
        maxOutboundStreams: 64,
      }),
    ],
    connectionGater: {
      // libp2p's own default denies private addresses in some environments; ours are mostly private.
      denyDialMultiaddr: () => false,
    },
    connectionManager: {
      maxConnections: config.max_peers + MAX_PENDING_ADMISSIONS,
      maxParallelDials: config.max_parallel_dials * ADDRESSES_AT_ONCE,
      maxDialQueueLength: config.max_parallel_dials * MAX_PEER_ADDRESSES,
      dialTimeout: config.dial_timeout_ms,
      maxIncomingPendingConnections: MAX_PENDING_ADMISSIONS,
      // Many hosts may stand behind one translated address and start together.
      inboundConnectionThreshold: config.max_peers,
      inboundUpgradeTimeout: config.dial_timeout_ms,
      reconnectRetries: 0,
    },
    connectionMonitor: { enabled: false },
  });
  const ask = node.getMultiaddrs.bind(node);
  let latest: ReturnType<typeof ask> = [];
  // Behind it stands os.networkInterfaces(), which throws while no descriptor is free.
  node.getMultiaddrs = () => {
    try {
      latest = ask();
    } catch {
      // As before: addresses change rarely.
    }
    return latest;
  };
  return node;
}

/**
 * Starts the node; a failure leaves it stopped, with every socket closed. `config_invalid` when an address cannot be listened on:
 * the fact `listen_errno` says why the first of them cannot.
 */
export async function startNode(node: Libp2p, config: NodeConfig): Promise<void> {
  try {
    await node.start();
  } catch (error) {
    await node.stop();
    throw await listenError(error, config);
  }
}

/** libp2p tells which of the addresses failed, but not why in a form to decide by: each is bound once more, alone. */
async function listenError(cause: unknown, config: NodeConfig): Promise<DaemonError> {
  const faults: { readonly what: string; readonly errno: string }[] = [];
  for (const host of config.listen) {
    for (const [name, bind] of [
      ['UDP', config.quic ? bindUdp : undefined],
      ['TCP', config.tcp ? bindTcp : undefined],
    ] as const) {
      const errno = await bind?.(host, config.port);
      if (errno !== undefined) faults.push({ what: `${name} ${host} (${errno})`, errno });
    }
  }
  const first = faults.find(({ errno }) => errno === 'EADDRINUSE') ?? faults[0];
  if (first === undefined) {
    // It went well this time: another failure, or a port that is free by now.
    const message = 'The swarm did not start: its transports failed.';
    return new DaemonError('unavailable', message, {}, { cause });
  }
  const where = faults.map(({ what }) => what).join(', ');
  const why =
    first.errno === 'EADDRINUSE'
      ? 'another program has the port'
      : first.errno === 'EADDRNOTAVAIL'
        ? 'this host does not have the address'
        : 'the address cannot be bound';
  return new DaemonError(
    'config_invalid',
    `The swarm cannot listen on port ${config.port} of ${where}: ${why}.`,
    { port: config.port, listen_errno: first.errno },
    { cause },
  );
}

/** Binds and lets go again; resolves to the system's error code when it cannot. */
async function bindUdp(host: string, port: number): Promise<string | undefined> {
  const socket =
    isIP(host) === 6 ? createSocket({ type: 'udp6', ipv6Only: true }) : createSocket('udp4');
  try {
    socket.bind(port, host);
    await once(socket, 'listening');
    return undefined;
  } catch (error) {
    return errnoOf(error) ?? 'unknown error';
  } finally {
    socket.close();
  }
}

async function bindTcp(host: string, port: number): Promise<string | undefined> {
  const server = createServer();
  try {
    server.listen({ port, host, ipv6Only: true });
    await once(server, 'listening');
    server.close();
    await once(server, 'close');
    return undefined;
  } catch (error) {
    return errnoOf(error) ?? 'unknown error';
  }
}

function listenAddresses(config: NodeConfig, port: number): string[] {
  return config.listen.flatMap((ip) => {
    const base = `/ip${isIP(ip)}/${ip}`;
    return [
      ...(config.quic ? [`${base}/udp/${port}/quic-v1`] : []),
      ...(config.tcp ? [`${base}/tcp/${port}`] : []),
    ];
  });
}

/** A port that is free for both protocols now; the kernel gives two different ones when asked twice. */
async function freePort(config: NodeConfig): Promise<number> {
  const host = config.listen[0] ?? '127.0.0.1';
  for (let i = 0; i < PORT_TRIES; i++) {
    const server = createServer().listen(0, host);
    try {
      await once(server, 'listening');
    } catch (error) {
      throw await listenError(error, config);
    }
    const { port } = server.address() as AddressInfo;
    const socket = createSocket(isIP(host) === 6 ? 'udp6' : 'udp4');
    socket.bind(port, host);
    const isFree = await once(socket, 'listening').then(
      () => true,
      () => false,
    );
    socket.close();
    server.close();
    await once(server, 'close');
    if (isFree) return port;
  }
  throw new DaemonError('unavailable', 'No port is free for both UDP and TCP.');
}

/** libp2p's own debug log costs time per packet even when nobody reads it; what matters is logged by our rooms. */
const silent: Logger = Object.assign(() => undefined, {
  error: () => undefined,
  trace: () => undefined,
  enabled: false,
  newScope: () => silent,
});
const silentLogger: ComponentLogger = { forComponent: () => silent };
