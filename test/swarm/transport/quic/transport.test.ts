import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { test, type TestContext } from 'node:test';
import { quic as stockQuic } from '@chainsafe/libp2p-quic';
import { generateKeyPair } from '@libp2p/crypto/keys';
import type { MultiaddrConnection, StreamMuxerFactory, Upgrader } from '@libp2p/interface';
import { defaultLogger } from '@libp2p/logger';
import { peerIdFromPrivateKey } from '@libp2p/peer-id';
import { type Multiaddr, multiaddr } from '@multiformats/multiaddr';
import { hasCode } from '../../../../src/base/errors.ts';
import { quic, type QuicTransport } from '../../../../src/swarm/transport/quic/transport.ts';
import { FakeClock } from '../../../fakes/fake-clock.ts';
import { closeOf, echo, joinNodes, readAll, startNode, startPair } from './quic-pair.ts';

const ANY_PORT = multiaddr('/ip4/127.0.0.1/udp/0/quic-v1');

/** A transport without libp2p around it; stopped at the end of the test. */
async function bare(t: TestContext, clock = new FakeClock()): Promise<QuicTransport> {
  const transport = quic(
    {},
    clock,
  )({ privateKey: await generateKeyPair('Ed25519'), logger: defaultLogger() });
  t.after(() => transport.stop());
  return transport;
}

/** Takes the place of libp2p's upgrader and keeps what it was given. */
class CapturingUpgrader {
  readonly connections: MultiaddrConnection[] = [];
  readonly #arrived: (() => void)[] = [];

  upgradeInbound = (connection: MultiaddrConnection): Promise<void> => {
    this.connections.push(connection);
    this.#arrived.shift()?.();
    return Promise.resolve();
  };
  upgradeOutbound = (
    connection: MultiaddrConnection,
    { muxerFactory }: { muxerFactory: StreamMuxerFactory },
  ): Promise<unknown> => {
    this.connections.push(connection);
    return Promise.resolve(muxerFactory.createStreamMuxer(connection));
  };
  next(): Promise<void> {
    return new Promise((resolve) => this.#arrived.push(resolve));
  }
  get upgrader(): Upgrader {
    return this as unknown as Upgrader;
  }
}

function withoutPeer(ma: Multiaddr): Multiaddr {
  return multiaddr(ma.toString().replace(/\/p2p\/.*/, ''));
}

test('only QUIC addresses with a literal IP are dialled and listened on', async (t) => {
  const transport = await bare(t);
  const peer = peerIdFromPrivateKey(await generateKeyPair('Ed25519')).toString();
  const good = [
    '/ip4/1.2.3.4/udp/5/quic-v1',
    '/ip6/::1/udp/5/quic-v1',
    `/ip4/1.2.3.4/udp/5/quic-v1/p2p/${peer}`,
  ];
  const bad = [
    '/ip4/1.2.3.4/tcp/5',
    '/ip4/1.2.3.4/udp/5',
    '/dns4/host/udp/5/quic-v1',
    '/ip4/1.2.3.4/udp/5/quic-v1/webtransport',
    `/ip4/1.2.3.4/udp/5/quic-v1/p2p/${peer}/p2p-circuit`,
  ];
  const passed = transport.dialFilter([...good, ...bad].map((a) => multiaddr(a)));
  assert.deepEqual(passed.map(String), good);
  await assert.rejects(
    transport
      .createListener({ upgrader: new CapturingUpgrader().upgrader })
      .listen(multiaddr(bad[0])),
    (error) => hasCode(error, 'invalid_argument'),
  );
});

test('a listener on port 0 tells its real port, and on the wildcard every interface', async (t) => {
  const transport = await bare(t);
  const one = transport.createListener({ upgrader: new CapturingUpgrader().upgrader });
  const all = transport.createListener({ upgrader: new CapturingUpgrader().upgrader });
  assert.deepEqual(one.getAddrs(), []);
  await one.listen(ANY_PORT);
  await all.listen(multiaddr('/ip4/0.0.0.0/udp/0/quic-v1'));
  assert.match(String(one.getAddrs()), /^\/ip4\/127\.0\.0\.1\/udp\/[1-9]\d*\/quic-v1$/);
  assert.ok(all.getAddrs().some((ma) => /127\.0\.0\.1\/udp\/[1-9]/.test(ma.toString())));
  assert.ok(!all.getAddrs().some((ma) => ma.toString().includes('0.0.0.0')));
  await Promise.all([one.close(), all.close()]);
  assert.deepEqual(one.getAddrs(), []);
});

test('a taken port is reported as unavailable, and closing frees it', async (t) => {
  const transport = await bare(t);
  const { upgrader } = new CapturingUpgrader();
  const first = transport.createListener({ upgrader });
  await first.listen(ANY_PORT);
  const [address] = first.getAddrs();
  const second = transport.createListener({ upgrader });
  await assert.rejects(second.listen(address!), (error) => hasCode(error, 'unavailable'));
  await first.close();
  await second.listen(address!);
  await second.close();
});

test('closing a listener ends the connections it accepted, with an error for their streams', async (t) => {
  const transport = await bare(t);
  const here = new CapturingUpgrader();
  const listener = transport.createListener({ upgrader: here.upgrader });
  await listener.listen(ANY_PORT);
  const arrived = here.next();
  const dialer = await startNode();
  t.after(() => dialer.stop());
  const connection = await dialer.dial(listener.getAddrs());
  await arrived;
  const ended = Promise.all([closeOf(connection), closeOf(here.connections[0]!)]);
  await listener.close();
  await ended;
  assert.equal(dialer.getConnections().length, 0);
  await assert.rejects(connection.newStream('/x/1'));
});

test('a lost connection is an error for the streams on it', async () => {
  await using pair = await startPair();
  const { near, far } = await pair.open();
  far.send(Buffer.alloc(10));
  await far.onDrain();
  const reading = readAll(near);
  pair.listener.getConnections()[0]?.abort(new Error('host dies'));
  await assert.rejects(reading);
  assert.notEqual(near.status, 'closed');
});

test('closing a connection ends every stream on both sides', async () => {
  await using pair = await startPair();
  const ends = await Promise.all(Array.from({ length: 5 }, () => pair.open()));
  const remote = pair.listener.getConnections()[0]!;
  const closed = [...ends.flatMap(({ near, far }) => [near, far]), pair.connection, remote];
  const events = Promise.all(closed.map((each) => closeOf(each)));
  await pair.connection.close();
  await events;
  assert.deepEqual([pair.connection.streams, remote.streams], [[], []]);
  assert.deepEqual([pair.connection.status, remote.status], ['closed', 'closed']);
});

test('a connection whose upgrade is refused is closed, and the next one is accepted', async (t) => {
  const transport = await bare(t);
  const here = new CapturingUpgrader();
  const refused: MultiaddrConnection[] = [];
  const accept = here.upgradeInbound;
  here.upgradeInbound = (connection) => {
    here.upgradeInbound = accept;
    refused.push(connection);
    return Promise.reject(new Error('not now'));
  };
  const listener = transport.createListener({
    upgrader: {
      upgradeInbound: (connection: MultiaddrConnection) => here.upgradeInbound(connection),
    } as unknown as Upgrader,
  });
  await listener.listen(ANY_PORT);
  const dialer = await startNode();
  t.after(() => dialer.stop());
  const closed = once(dialer, 'connection:close');
  await dialer.dial(listener.getAddrs());
  await closed;
  assert.equal(refused[0]?.status, 'aborted');
  const arrived = here.next();
  const second = await dialer.dial(listener.getAddrs());
  await arrived;
  assert.equal(second.status, 'open');
  await listener.close();
});

test('a host that proves another identity than the address names is refused', async (t) => {
  const transport = await bare(t);
  const host = await startNode();
  t.after(() => host.stop());
  const other = peerIdFromPrivateKey(await generateKeyPair('Ed25519'));
  const wrong = withoutPeer(host.getMultiaddrs()[0]!).encapsulate(`/p2p/${other.toString()}`);
  const here = new CapturingUpgrader();
  const signal = new AbortController().signal;
  await assert.rejects(
    transport.dial(wrong, { upgrader: here.upgrader, signal }),
    (error) =>
      hasCode(error, 'permission_denied') && error.facts['proven'] === host.peerId.toString(),
  );
  assert.deepEqual(here.connections, []);
});

test('a dial without a peer id takes the identity from the handshake', async () => {
  const [dialer, host] = await Promise.all([startNode(), startNode()]);
  const connection = await dialer.dial(withoutPeer(host.getMultiaddrs()[0]!));
  assert.ok(connection.remotePeer.equals(host.peerId));
  await Promise.all([dialer.stop(), host.stop()]);
});

async function silentHost(t: TestContext): Promise<Multiaddr> {
  const socket = createSocket('udp4');
  socket.bind(0, '127.0.0.1');
  await once(socket, 'listening');
  t.after(() => socket.close());
  return multiaddr(`/ip4/127.0.0.1/udp/${socket.address().port}/quic-v1`);
}

test('a dial that nobody answers ends at our deadline', async (t) => {
  const clock = new FakeClock();
  const transport = await bare(t, clock);
  const { upgrader } = new CapturingUpgrader();
  const signal = new AbortController().signal;
  const dial = transport.dial(await silentHost(t), { upgrader, signal });
  const refused = assert.rejects(dial, (error) => hasCode(error, 'deadline_exceeded'));
  await clock.advance(5_000);
  await refused;
});

test('a dial ends at once when its signal aborts', async (t) => {
  const transport = await bare(t);
  const { upgrader } = new CapturingUpgrader();
  const caller = new AbortController();
  const host = await silentHost(t);
  const dial = transport.dial(host, { upgrader, signal: caller.signal });
  caller.abort();
  await assert.rejects(dial, { name: 'AbortError' });
  await assert.rejects(transport.dial(host, { upgrader, signal: caller.signal }), {
    name: 'AbortError',
  });
});

test('opening a stream beyond the peer’s limit ends at our deadline', async (t) => {
  const host = await startNode([quic({ max_inbound_streams: 1 })]);
  t.after(() => host.stop());
  const clock = new FakeClock();
  const transport = await bare(t, clock);
  const { upgrader } = new CapturingUpgrader();
  const signal = new AbortController().signal;
  // The capturing upgrader answers with the muxer itself.
  const muxer = (await transport.dial(host.getMultiaddrs()[0]!, {
    upgrader,
    signal,
  })) as unknown as ReturnType<StreamMuxerFactory['createStreamMuxer']>;
  await muxer.createStream();
  const second = assert.rejects(muxer.createStream(), (error) =>
    hasCode(error, 'resource_exhausted'),
  );
  const caller = new AbortController();
  const third = assert.rejects(muxer.createStream({ signal: caller.signal }), /caller left/);
  caller.abort(new Error('caller left'));
  await third;
  await clock.advance(5_000);
  await second;
  const fourth = assert.rejects(muxer.createStream(), { name: 'MuxerClosedError' });
  muxer.abort(new Error('done'));
  await fourth;
});

for (const id of ['the stock transport dials ours', 'ours dials the stock transport'] as const) {
  test(`the wire is that of libp2p QUIC: ${id}`, async () => {
    const stock = await startNode([stockQuic()]);
    const own = await startNode();
    const [dialer, listener] = id.startsWith('ours') ? [own, stock] : [stock, own];
    await using pair = await joinNodes(dialer, listener);
    const { near, far } = await pair.open();
    echo(far);
    const sent = Buffer.alloc(2 ** 20, 'payload');
    near.send(sent);
    await near.close();
    assert.deepEqual(await readAll(near), sent);
  });
}

test('after stop nothing keeps the process alive', async () => {
  const script = `
    import { startPair, echo, readAll } from ${JSON.stringify(import.meta.resolve('./quic-pair.ts'))};
    const pair = await startPair();
    const { near, far } = await pair.open();
    echo(far);
    near.send(Buffer.alloc(100));
    await near.close();
    await readAll(near);
    await pair.open();
    await pair[Symbol.asyncDispose]();
    process.stdout.write('stopped');`;
  const child = spawn(process.execPath, ['--input-type=module', '--eval', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let output = '';
  child.stdout.on('data', (data: Buffer) => (output += data.toString()));
  const [code] = (await once(child, 'exit')) as [number | null];
  assert.deepEqual([code, output], [0, 'stopped']);
});
