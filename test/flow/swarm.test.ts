import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { pieceLength, PIECE_BYTES } from '../../src/piece/layout.ts';
import { hasCode } from '../../src/base/errors.ts';
import type { Digest } from '../../src/oci/digest.ts';
import { generateClusterKey } from '../../src/swarm/admission/cluster-key.ts';
import { MemoryBlobs, eventually, SwarmHost, TEST_KEY } from '../swarm/swarm-host.ts';

const signal = new AbortController().signal;

for (const transport of ['tcp', 'quic'] as const) {
  test(`two hosts exchange inventories, a list and pieces over ${transport}`, {
    timeout: 20_000,
  }, async () => {
    const only = { tcp: transport === 'tcp', quic: transport === 'quic' };
    await using a = await SwarmHost.start(only);
    const bytes = randomBytes(2 * PIECE_BYTES + 12_345);
    const digest = a.blobs.put(bytes);
    await using b = await SwarmHost.start({ ...only, bootstrap: [a.address] });
    await Promise.all([a.ready(1), b.ready(1)]);
    const [source] = b.swarm.find(digest, bytes.length);
    assert.ok(source !== undefined);
    assert.equal(source.id, a.swarm.id);
    assert.equal(source.depth, transport === 'quic' ? 2 : 4);
    const list = await source.list({ max_pieces: 3, signal });
    assert.equal(list.size_bytes, bytes.length);
    const own = await a.blobs.pieceList(digest);
    assert.equal(Buffer.compare(list.digests, own.digests), 0);
    const pieces = await Promise.all(
      [0, 1, 2].map((i) => source.fetch(i, pieceLength(bytes.length, i), { signal })),
    );
    assert.ok(Buffer.concat(pieces.map((p) => p.bytes)).equals(bytes));
    assert.equal(b.swarm.status().peers[0]?.transport, transport);
    assert.deepEqual(a.swarm.find(digest, bytes.length), []);
  });
}

test('a blob that appears or disappears later is told to connected peers', {
  timeout: 20_000,
}, async (t) => {
  await using a = await SwarmHost.start();
  await using b = await SwarmHost.start({ bootstrap: [a.address] });
  await Promise.all([a.ready(1), b.ready(1)]);
  const digest = a.blobs.put(randomBytes(1000));
  await eventually(t, () => !(b.swarm.find(digest, 1000).length === 0));
  assert.deepEqual(b.swarm.explain(digest), [{ peer: a.swarm.id, reason: 'candidate' }]);
  a.blobs.remove(digest);
  await eventually(t, () => !(b.swarm.find(digest, 1000).length > 0));
  assert.deepEqual(b.swarm.explain(digest), [{ peer: a.swarm.id, reason: 'no_content' }]);
});

test('hosts that know only the first one find each other by peer exchange', {
  timeout: 20_000,
}, async () => {
  await using a = await SwarmHost.start();
  await using b = await SwarmHost.start({ bootstrap: [a.address] });
  await using c = await SwarmHost.start({ bootstrap: [a.address] });
  await Promise.all([a, b, c].map((host) => host.ready(2)));
  assert.ok(c.swarm.status().peers.some((p) => p.id === b.swarm.id));
});

test('hosts that dial each other at the same time keep one connection, the same on both sides', {
  timeout: 20_000,
}, async () => {
  await using a = await SwarmHost.start();
  await using b = await SwarmHost.start({ bootstrap: [a.address] });
  await using c = await SwarmHost.start({ bootstrap: [a.address, b.address] });
  await Promise.all([a, b, c].map((host) => host.ready(2)));
  for (const host of [a, b, c]) assert.equal(host.swarm.status().peers.length, 2);
});

test('a host whose bootstrap names only itself is alone and does not dial itself', {
  timeout: 20_000,
}, async (t) => {
  await using seed = await SwarmHost.start();
  const port = Number(seed.address.split(':')[1]);
  await seed[Symbol.asyncDispose]();
  await using a = await SwarmHost.start({
    port,
    bootstrap: [`127.0.0.1:${port}`, `[::1]:${port}`],
  });
  await eventually(t, () => !a.swarm.status().addresses.some((t) => t.result === 'pending'));
  assert.equal(a.swarm.status().state, 'alone');
  assert.deepEqual(
    a.swarm.status().addresses.map((t) => t.result),
    ['self', 'self'],
  );
  assert.equal(a.register.value('dials_total', { result: 'self' }), 0);
});

test('a host with another cluster key is refused by name on both sides', {
  timeout: 20_000,
}, async (t) => {
  await using a = await SwarmHost.start();
  await using b = await SwarmHost.start({ bootstrap: [a.address] }, { key: generateClusterKey() });
  await eventually(t, () => !(b.swarm.status().addresses[0]?.result !== 'wrong_key'));
  await eventually(t, () => !(a.register.value('admissions_total', { result: 'wrong_key' }) === 0));
  for (const host of [a, b]) {
    assert.equal(host.swarm.status().state, 'alone');
    const warnings = host.logger.lines.filter((l) => l.level === 'warn');
    assert.equal(warnings.length, 1);
    assert.ok(!JSON.stringify(host.logger.lines).includes(TEST_KEY));
  }
});

test('one key in common is enough, so that keys can be rotated', { timeout: 20_000 }, async () => {
  await using a = await SwarmHost.start({}, { key: `${generateClusterKey()}\n${TEST_KEY}` });
  await using b = await SwarmHost.start({ bootstrap: [a.address] });
  await Promise.all([a.ready(1), b.ready(1)]);
});

test('a peer that sent a wrong piece is banned, disconnected and not dialled again', {
  timeout: 20_000,
}, async (t) => {
  await using a = await SwarmHost.start();
  const digest = a.blobs.put(randomBytes(1000));
  await using b = await SwarmHost.start({ bootstrap: [a.address] });
  await b.ready(1);
  const left = a.until((s) => s.peers.length === 0);
  b.swarm.find(digest, 1000)[0]?.blame('wrong_piece');
  assert.equal(b.swarm.status().peers.length, 0);
  assert.deepEqual(b.swarm.find(digest, 1000), []);
  assert.deepEqual(b.swarm.explain(digest), [{ peer: a.swarm.id, reason: 'banned' }]);
  await left;
  await eventually(t, () => !(b.swarm.status().addresses[0]?.result !== 'banned'));
  assert.equal(b.swarm.status().peers.length, 0);
  assert.deepEqual(a.swarm.status().bans, [], 'a ban is our own affair');
});

test('a connection that dies in the middle of a piece fails every request on it at once', {
  timeout: 20_000,
}, async () => {
  for (const transport of ['tcp', 'quic'] as const) {
    const only = { tcp: transport === 'tcp', quic: transport === 'quic' };
    await using a = await SwarmHost.start({ ...only, max_upload_bytes_per_second: PIECE_BYTES });
    const bytes = randomBytes(4 * PIECE_BYTES);
    const digest = a.blobs.put(bytes);
    await using b = await SwarmHost.start({ ...only, bootstrap: [a.address] });
    await b.ready(1);
    const [source] = b.swarm.find(digest, bytes.length);
    const started = Promise.withResolvers<undefined>();
    const fetches = [0, 1, 2].map((i) =>
      source!.fetch(i, PIECE_BYTES, { signal, onProgress: () => started.resolve(undefined) }),
    );
    const outcomes = Promise.allSettled(fetches);
    await started.promise;
    await a[Symbol.asyncDispose]();
    const failed = (await outcomes).filter((o) => o.status === 'rejected');
    assert.ok(failed.length >= 2);
    for (const o of failed) assert.ok(hasCode(o.reason, 'internal'));
    assert.deepEqual(b.swarm.find(digest, bytes.length), []);
  }
});

test('a host without a free upload slot answers busy, and is used again when nobody else has the blob', {
  timeout: 20_000,
}, async () => {
  const blobs = new GatedBlobs();
  await using a = await SwarmHost.start({ upload_slots: 1, max_waiting_uploads: 0 }, { blobs });
  const length = 100_000;
  const digest = blobs.put(randomBytes(length));
  await using b = await SwarmHost.start({ bootstrap: [a.address] });
  await using c = await SwarmHost.start({ bootstrap: [a.address] });
  await Promise.all([b.ready(2), c.ready(2)]);
  const first = b.swarm.find(digest, length)[0]!.fetch(0, length, { signal });
  await blobs.asked.promise;
  const source = c.swarm.find(digest, length)[0]!;
  await assert.rejects(source.fetch(0, length, { signal }), (e) => hasCode(e, 'unavailable'));
  source.blame('busy');
  assert.deepEqual(c.swarm.explain(digest).find((x) => x.peer === a.swarm.id)?.reason, 'busy');
  assert.equal(c.swarm.find(digest, length).length, 1, 'a busy holder is better than none');
  const left_out = c.register.value('candidates_excluded_total', { reason: 'busy' });
  assert.equal(left_out, 0, 'it was not left out');
  blobs.open.resolve(undefined);
  assert.equal((await first).bytes.length, length);
});

test('a piece of another length than expected, or of an unknown blob, is not found', {
  timeout: 20_000,
}, async () => {
  await using a = await SwarmHost.start();
  const digest = a.blobs.put(randomBytes(1000));
  await using b = await SwarmHost.start({ bootstrap: [a.address] });
  await b.ready(1);
  const source = b.swarm.find(digest, 1000)[0]!;
  await assert.rejects(source.fetch(0, 999, { signal }), (e) => hasCode(e, 'not_found'));
  await assert.rejects(source.fetch(1, 1000, { signal }), (e) => hasCode(e, 'not_found'));
  source.blame('no_content');
  assert.deepEqual(b.swarm.find(digest, 1000), []);
  assert.equal(b.swarm.status().peers.length, 1);
});

/** Blobs whose first read waits until the test lets it go on. */
class GatedBlobs extends MemoryBlobs {
  readonly asked = Promise.withResolvers<undefined>();
  readonly open = Promise.withResolvers<undefined>();

  override async readPiece(digest: Digest, index: number): Promise<Uint8Array> {
    this.asked.resolve(undefined);
    await this.open.promise;
    return super.readPiece(digest, index);
  }
}
