import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { test } from 'node:test';
import { generateKeyPair } from '@libp2p/crypto/keys';
import type { Connection, Libp2p, Stream } from '@libp2p/interface';
import { multiaddr } from '@multiformats/multiaddr';
import { systemClock } from '../../src/base/clock.ts';
import { digestOf } from '../../src/oci/digest.ts';
import { admitAsDialer } from '../../src/swarm/admission/admission.ts';
import { ClusterKeys } from '../../src/swarm/admission/cluster-key.ts';
import {
  decodeInventoryHeader,
  encodeInventory,
  INVENTORY_HEADER_BYTES,
  type InventoryFrameType,
} from '../../src/swarm/inventory/inventory-protocol.ts';
import {
  ADMISSION_PROTOCOL,
  INVENTORY_PROTOCOL,
  PIECE_PROTOCOL,
} from '../../src/swarm/ground/limits.ts';
import { FrameDecoder } from '../../src/swarm/transport/frame-decoder.ts';
import { createNode, startNode } from '../../src/swarm/transport/node.ts';
import { encodeRequest } from '../../src/swarm/exchange/piece-protocol.ts';
import { FakeClock } from '../fakes/fake-clock.ts';
import { eventually, loopbackConfig, SwarmHost, TEST_KEY } from '../swarm/swarm-host.ts';

const config = { ...loopbackConfig(), quic: false };
const hello = { protocol: 1, software: 'raw', zone: '', host: 'raw', listen: [] };

/** A bare libp2p node that says what it likes. */
class Stranger implements AsyncDisposable {
  readonly node: Libp2p;
  readonly connection: Connection;
  readonly closed: Promise<unknown>;
  /** Types of the inventory frames that came, in order. */
  readonly heard: readonly (InventoryFrameType | undefined)[];

  private constructor(node: Libp2p, connection: Connection, heard: Stranger['heard']) {
    this.node = node;
    this.connection = connection;
    this.closed = once(connection, 'close');
    this.heard = heard;
  }

  static async dial(host: SwarmHost): Promise<Stranger> {
    const node = await createNode(await generateKeyPair('Ed25519'), config);
    const heard: (InventoryFrameType | undefined)[] = [];
    await node.handle(PIECE_PROTOCOL, () => undefined);
    await node.handle(INVENTORY_PROTOCOL, (stream) => {
      const decoder = new FrameDecoder(INVENTORY_HEADER_BYTES, (frame) => {
        const { type, length } = decodeInventoryHeader(frame);
        heard.push(type);
        return { length, done: () => undefined };
      });
      stream.addEventListener('message', ({ data }) => decoder.push(data.subarray()));
    });
    await startNode(node, config);
    const listening = host.swarm.status().listen.find((address) => address.includes('/tcp/'));
    return new Stranger(node, await node.dial(multiaddr(listening)), heard);
  }

  /** Proves the cluster key, so that the other protocols are served. */
  async admit(): Promise<void> {
    const stream = await this.open(ADMISSION_PROTOCOL);
    await admitAsDialer(stream, {
      keys: ClusterKeys.parse(TEST_KEY, 'test'),
      self: this.node.peerId.toString(),
      peer: this.connection.remotePeer.toString(),
      signal: systemClock.timeout(5000),
    });
  }

  open(protocol: string): Promise<Stream> {
    return this.connection.newStream(protocol, { negotiateFully: true });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.node.stop();
  }
}

test('a stranger that stays silent is disconnected after 2 s', { timeout: 20_000 }, async (t) => {
  const clock = new FakeClock();
  await using host = await SwarmHost.start({}, { clock });
  const { pending } = clock;
  await using stranger = await Stranger.dial(host);
  await eventually(t, () => clock.pending > pending);
  await clock.advance(1999);
  assert.equal(stranger.connection.status, 'open');
  await clock.advance(1);
  await stranger.closed;
  assert.equal(host.register.value('admissions_total', { result: 'timeout' }), 1);
  assert.equal(host.swarm.status().state, 'alone');
});

test('nothing but admission is served to a stranger', { timeout: 20_000 }, async (t) => {
  await using host = await SwarmHost.start();
  const digest = host.blobs.put(randomBytes(100));
  await using stranger = await Stranger.dial(host);
  for (const protocol of [PIECE_PROTOCOL, INVENTORY_PROTOCOL]) {
    const stream = await stranger.open(protocol);
    const request = encodeRequest({ kind: 'piece', id: 1, digest, index: 0, length: 100 });
    if (stream.status === 'open') stream.send(request);
    await eventually(t, () => stream.status === 'reset');
  }
  assert.equal(host.blobs.reads, 0);
});

test('an admitted peer that asks for more than a piece, or for what nobody knows, is told so and stays', {
  timeout: 20_000,
}, async (t) => {
  await using host = await SwarmHost.start();
  await using stranger = await Stranger.dial(host);
  await stranger.admit();
  const stream = await stranger.open(PIECE_PROTOCOL);
  const answers: number[] = [];
  stream.addEventListener('message', ({ data }) => answers.push(...data.subarray()));
  const digest = digestOf(header(1));
  const larger = encodeRequest({ kind: 'piece', id: 1, digest, index: 0, length: 2 ** 31 });
  const later = encodeRequest({ kind: 'list', id: 2, digest, max_pieces: 1 });
  later[1] = 99;
  stream.send(Buffer.concat([larger, later]));
  await eventually(t, () => answers.length === 32);
  // Kind as it was asked, status "unsupported", id.
  assert.deepEqual(answers.slice(0, 8), [1, 1, 4, 0, 0, 0, 0, 1]);
  assert.deepEqual(answers.slice(16, 24), [1, 99, 4, 0, 0, 0, 0, 2]);
  assert.deepEqual(host.swarm.status().bans, []);
  assert.equal(stranger.connection.status, 'open');
});

const header = (...bytes: number[]): Uint8Array => Uint8Array.of(...bytes);
const abuses = [
  {
    id: 'an inventory frame of 4 GiB',
    protocol: INVENTORY_PROTOCOL,
    greeted: true,
    frames: [header(1, 2, 0, 0, 255, 255, 255, 255)],
    banned: true,
  },
  {
    id: 'an unknown mandatory frame',
    protocol: INVENTORY_PROTOCOL,
    greeted: true,
    frames: [header(1, 99, 0, 0, 0, 0, 0, 0)],
    banned: false,
  },
  {
    id: 'no hello',
    protocol: INVENTORY_PROTOCOL,
    greeted: false,
    frames: [encodeInventory('ping')],
    banned: true,
  },
  {
    id: 'a flood of pings',
    protocol: INVENTORY_PROTOCOL,
    greeted: true,
    frames: Array<Uint8Array>(2000).fill(encodeInventory('ping')),
    banned: true,
  },
  {
    id: 'another inventory version',
    protocol: INVENTORY_PROTOCOL,
    greeted: false,
    frames: [header(2, 1, 0, 0, 0, 0, 0, 0)],
    banned: false,
  },
  {
    id: 'another piece version',
    protocol: PIECE_PROTOCOL,
    greeted: false,
    frames: [new Uint8Array(80).fill(2)],
    banned: false,
  },
];
for (const { id, protocol, greeted, frames, banned } of abuses) {
  test(`an admitted peer that sends ${id} is disconnected`, { timeout: 20_000 }, async (t) => {
    await using host = await SwarmHost.start();
    await using stranger = await Stranger.dial(host);
    await stranger.admit();
    const stream = await stranger.open(protocol);
    if (greeted) stream.send(encodeInventory('hello', hello));
    stream.send(Buffer.concat(frames));
    await stranger.closed;
    await eventually(t, () => host.swarm.status().peers.length === 0);
    const { bans } = host.swarm.status();
    assert.deepEqual(
      bans.map((ban) => ban.id),
      banned ? [stranger.node.peerId.toString()] : [],
    );
    const reason = banned ? 'protocol_error' : 'protocol_version';
    assert.equal(host.register.value('swarm_connections_closed_total', { reason }), 1);
  });
}

test('an admitted peer that never speaks is dead after the time limit', {
  timeout: 20_000,
}, async (t) => {
  const clock = new FakeClock();
  await using host = await SwarmHost.start({}, { clock });
  await using stranger = await Stranger.dial(host);
  await stranger.admit();
  await eventually(t, () => host.swarm.status().peers.length === 1);
  await eventually(t, () => host.register.value('admissions_total', { result: 'ok' }) === 1);
  await clock.advance(5000);
  await clock.advance(5000);
  await stranger.closed;
  assert.equal(host.register.value('swarm_connections_closed_total', { reason: 'silent' }), 1);
});

test('addresses a peer tells of are kept apart from asking: no frame goes back for them', {
  timeout: 20_000,
}, async (t) => {
  await using host = await SwarmHost.start();
  await using stranger = await Stranger.dial(host);
  await stranger.admit();
  const stream = await stranger.open(INVENTORY_PROTOCOL);
  const own = host.swarm.status().listen[0]!.replace(/\/p2p\/.*/, '');
  const peers = [
    { id: host.swarm.id, addresses: [own] },
    { id: '12D3KooWGC6TvWhfapngX6wvJHMYvKpDMXPb3ZnCZ6dMoaMtimQ5', addresses: [own] },
  ];
  stream.send(encodeInventory('hello', hello));
  stream.send(encodeInventory('peers', peers));
  await eventually(t, () => host.swarm.status().addresses.some((a) => a.result === 'self'));
  assert.equal(host.register.value('dials_total', { result: 'self' }), 0);
  assert.equal(host.swarm.status().addresses.length, 1);
  // Frames keep their order, and peers follow changes within a batch: with the second change, all of the first batch is here.
  for (let changes = 1; changes <= 2; changes++) {
    host.blobs.put(randomBytes(100));
    await eventually(t, () => stranger.heard.filter((f) => f === 'add').length === changes);
  }
  assert.ok(!stranger.heard.includes('peers'), stranger.heard.join(' '));
});
