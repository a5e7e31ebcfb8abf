import { generateKeyPair } from '@libp2p/crypto/keys';
import type { Connection, Stream, StreamCloseEvent } from '@libp2p/interface';
import { createLibp2p, type Libp2p, type Libp2pOptions } from 'libp2p';
import type { QuicConfig } from '../../../../src/swarm/transport/quic/config.ts';
import { quic } from '../../../../src/swarm/transport/quic/transport.ts';

type Transports = NonNullable<Libp2pOptions['transports']>;

/** A libp2p node with one transport, by default our QUIC, on a free loopback port. It does nothing by itself. */
export async function startNode(transports: Transports = [quic()]): Promise<Libp2p> {
  return createLibp2p({
    privateKey: await generateKeyPair('Ed25519'),
    addresses: { listen: ['/ip4/127.0.0.1/udp/0/quic-v1'] },
    transports,
    connectionMonitor: { enabled: false },
  });
}

/** Both ends of one stream: `near` at the dialer, `far` at the listener. */
export type Ends = { readonly near: Stream; readonly far: Stream };

export type Pair = AsyncDisposable & {
  readonly dialer: Libp2p;
  readonly listener: Libp2p;
  readonly connection: Connection;
  open(options?: { signal?: AbortSignal }): Promise<Ends>;
};

const PROTOCOL = '/test/quic/1';

/** Two connected nodes. Disposing stops both. */
export async function startPair(
  config: { dialer?: Partial<QuicConfig>; listener?: Partial<QuicConfig> } = {},
): Promise<Pair> {
  return joinNodes(
    await startNode([quic(config.dialer)]),
    await startNode([quic(config.listener)]),
  );
}

/** Connects two started nodes; the pair owns them from now on. */
export async function joinNodes(dialer: Libp2p, listener: Libp2p): Promise<Pair> {
  const arrivals: ((stream: Stream) => void)[] = [];
  await listener.handle(PROTOCOL, (stream) => arrivals.shift()?.(stream), {
    maxInboundStreams: 1000,
  });
  const connection = await dialer.dial(listener.getMultiaddrs());
  return {
    dialer,
    listener,
    connection,
    open: async (options) => {
      const arrival = new Promise<Stream>((resolve) => arrivals.push(resolve));
      const near = await connection.newStream(PROTOCOL, { maxOutboundStreams: 1000, ...options });
      return { near, far: await arrival };
    },
    [Symbol.asyncDispose]: async () => {
      await Promise.all([dialer.stop(), listener.stop()]);
    },
  };
}

/** Answers every message with itself and ends when the other side does, also in a reset. */
export function echo(stream: Stream): void {
  void (async () => {
    for await (const chunk of stream) {
      if (!stream.send(chunk)) await stream.onDrain();
    }
    await stream.close();
  })().catch((error: unknown) => stream.abort(error as Error));
}

/** Everything up to the clean end, as one buffer; rejects when the stream is cut off. */
export async function readAll(stream: Stream): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  for await (const chunk of stream) parts.push(chunk.subarray());
  return Buffer.concat(parts);
}

/** The stream's or connection's 'close' event. */
export function closeOf(target: Pick<Stream, 'addEventListener'>): Promise<StreamCloseEvent> {
  return new Promise((resolve) => target.addEventListener('close', resolve, { once: true }));
}

/**
 * A wait that is measured in work instead of time: `rounds` messages go back and forth over a stream of their own. What
 * the connection could have delivered elsewhere meanwhile, it has delivered.
 */
export async function roundTrips(pair: Pair, rounds: number): Promise<void> {
  const { near, far } = await pair.open();
  echo(far);
  for (let n = 0; n < rounds; n++) {
    const answer = new Promise((resolve) =>
      near.addEventListener('message', resolve, { once: true }),
    );
    near.send(Buffer.alloc(64 * 1024, n));
    await answer;
  }
  near.abort(new Error('done'));
}
