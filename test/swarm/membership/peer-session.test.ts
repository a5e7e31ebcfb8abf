import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Connection, Stream } from '@libp2p/interface';
import { multiaddr } from '@multiformats/multiaddr';
import { PieceBuffers } from '../../../src/swarm/exchange/piece-buffers.ts';
import { PIECE_PROTOCOL, WIRE_VERSION } from '../../../src/swarm/ground/limits.ts';
import { encodeInventory } from '../../../src/swarm/inventory/inventory-protocol.ts';
import { OwnInventory } from '../../../src/swarm/inventory/own-inventory.ts';
import { PeerSession, type SessionModules } from '../../../src/swarm/membership/peer-session.ts';
import { Standings } from '../../../src/swarm/membership/standing.ts';
import { type CloseReason, createSwarmMetrics } from '../../../src/swarm/metrics.ts';
import { FakeClock, settle } from '../../fakes/fake-clock.ts';
import { MemoryLogger } from '../../fakes/memory-logger.ts';
import { MemoryRegister } from '../../fakes/memory-register.ts';
import { MemoryStream } from '../memory-stream.ts';
import { loopbackConfig } from '../swarm-host.ts';

const HELLO = { protocol: WIRE_VERSION, software: '', zone: '', host: '', listen: [] };

/** A connection as far as a session looks at it. The peer has every protocol but those it is asked for to see whether it lives. */
class FakeConnection extends EventTarget {
  readonly remotePeer = { toString: () => 'peer' };
  readonly remoteAddr = multiaddr('/ip4/10.0.0.1/tcp/1');
  readonly direction = 'inbound';
  /** False: the peer's host is gone. */
  answers = true;
  questions = 0;

  async newStream(protocol: string, { signal }: { signal: AbortSignal }): Promise<Stream> {
    if (protocol.includes('probe')) {
      this.questions += 1;
      if (this.answers) throw Object.assign(new Error('na'), { name: 'UnsupportedProtocolError' });
      return new Promise((_, reject) => {
        signal.addEventListener('abort', () => reject(signal.reason as Error), { once: true });
      });
    }
    return MemoryStream.pair()[0].stream;
  }

  abort(): void {
    this.dispatchEvent(new Event('close'));
  }
}

/** A session of a peer that has said hello and nothing since. */
async function greeted(peer_timeout_ms: number, isReplaced = false) {
  const clock = new FakeClock();
  const connection = new FakeConnection();
  const ended: CloseReason[] = [];
  const metrics = createSwarmMetrics(new MemoryRegister(), { peers: () => 1, announced: () => 0 });
  const config = { ...loopbackConfig(), peer_timeout_ms };
  const served: Stream[] = [];
  const modules = {
    connection: connection as unknown as Connection,
    own: new OwnInventory(),
    standings: new Standings({ clock, metrics }, config),
    server: { serve: (stream: Stream) => served.push(stream) },
    buffers: new PieceBuffers(),
    clock,
    logger: new MemoryLogger(),
    metrics,
    state: () => ({ disk_full: false, load: 0 }),
    events: {
      onHello: () => undefined,
      onSynced: () => undefined,
      onPeers: () => undefined,
      isReplaced: () => isReplaced,
      onEnd: (_: PeerSession, reason: CloseReason) => ended.push(reason),
    },
  } as unknown as SessionModules;
  const session = new PeerSession(modules, config);
  session.start(HELLO);
  const [ours, theirs] = MemoryStream.pair();
  session.accept('/layerswarm/inventory/1', ours.stream);
  theirs.send(encodeInventory('hello', HELLO));
  await settle();
  return { clock, connection, session, ended, inventory: theirs };
}

test('bytes of any stream are a sign of life: a peer whose link is full of pieces is not silent', async () => {
  const { clock, connection, session, ended } = await greeted(10_000);
  connection.answers = false;
  const [ours, theirs] = MemoryStream.pair();
  session.accept(PIECE_PROTOCOL, ours.stream);
  for (let n = 0; n < 10; n++) {
    await clock.advance(4000);
    theirs.send(new Uint8Array(100));
    await settle();
  }
  assert.deepEqual([ended, connection.questions], [[], 0]);
  await clock.advance(10_000);
  assert.deepEqual(ended, ['silent']);
});

test('answers to our own requests are a sign of life too', async () => {
  const { clock, connection, session, ended } = await greeted(10_000);
  connection.answers = false;
  let theirs: MemoryStream | undefined;
  connection.newStream = async () => {
    const [ours, other] = MemoryStream.pair();
    theirs = other;
    return ours.stream;
  };
  const asked = new AbortController();
  const digest = `sha256:${'0'.repeat(64)}` as Parameters<typeof session.pieces.list>[0];
  session.pieces.list(digest, { max_pieces: 1, signal: asked.signal }).catch(() => 'given up');
  await settle();
  for (let n = 0; n < 10; n++) {
    await clock.advance(4000);
    // One byte of a header at a time.
    theirs?.send(new Uint8Array(1).fill(n === 0 ? WIRE_VERSION : 0));
    await settle();
  }
  assert.deepEqual(ended, []);
  asked.abort();
});

test('a peer that pings less often than we are patient is asked, and its "no" keeps it', async () => {
  const { clock, connection, ended, inventory } = await greeted(1000);
  for (let n = 0; n < 6; n++) {
    // As peers of every version do.
    await clock.advance(5000);
    inventory.send(encodeInventory('ping'));
  }
  assert.deepEqual(ended, []);
  assert.ok(connection.questions > 0);
});

test('a peer that is silent and does not answer is dead after its time and no later', async () => {
  const { clock, connection, session, ended } = await greeted(1000);
  connection.answers = false;
  await clock.advance(990);
  assert.deepEqual([ended, session.ended], [[], undefined]);
  await clock.advance(20);
  assert.deepEqual([ended, session.ended], [['silent'], 'silent']);
});

test('a peer that pings as often as by default is never asked', async () => {
  const { clock, connection, ended, inventory } = await greeted(10_000);
  for (let n = 0; n < 10; n++) {
    await clock.advance(5000);
    inventory.send(encodeInventory('ping'));
    await settle();
  }
  assert.deepEqual([ended, connection.questions], [[], 0]);
});

test('the end of a session says why: broken, replaced, or a goodbye', async () => {
  const broken = await greeted(10_000);
  broken.connection.abort();
  const replaced = await greeted(10_000, true);
  replaced.connection.abort();
  const left = await greeted(10_000);
  left.inventory.send(encodeInventory('refuse', { reason: 'shutdown' }));
  await settle();
  const all = [broken, replaced, left];
  assert.deepEqual(
    all.map(({ session }) => session.ended),
    ['gone', 'replaced', 'goodbye'],
  );
  assert.deepEqual(
    all.map(({ ended }) => ended),
    [['gone'], ['replaced'], ['goodbye']],
  );
});
