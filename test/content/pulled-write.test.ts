import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Digest, digestOf } from '../../src/oci/digest.ts';
import { PIECE_BYTES } from '../../src/piece/layout.ts';
import { settle } from '../fakes/fake-clock.ts';
import { ContentDoor, someBytes, withCode } from './content-door.ts';
import { completes, digest, doorWith, givesPrefix, layer, ref, total } from './pulled-layer.ts';

for (const start of [0, 1234]) {
  test(`a blob that peers deliver whole is committed without a write, starting at ${start}`, async () => {
    const door = await doorWith(start);
    const writer = door.writer();
    assert.equal((await writer.open(ref, total)).offset, start);
    const second = writer.stat();
    await completes(door);
    const { offset, digest: running, total: sticky } = await second;
    assert.deepEqual([offset, running, sticky], [total, digest, total]);
    assert.equal((await writer.stat()).offset, total);
    // containerd's writer still believes in the first offset.
    const done = await writer.commit({ offset: start, total, expected: digest });
    assert.deepEqual([done.offset, done.digest, done.last], [total, digest, true]);
    await writer.close();
    assert.equal(door.store.blobs.get(digest)?.state, 'owned');
    assert.equal(door.store.status(ref), undefined);
    assert.equal(door.pull.ticket().released, 1);
    assert.equal(door.register.value('content_prefills_total', { outcome: 'complete' }), 1);
  });

  test(`a writer continues behind a prefix from peers by its own count, starting at ${start}`, async () => {
    const door = await doorWith(start);
    const writer = door.writer();
    await writer.open(ref, total);
    await givesPrefix(door);
    assert.equal((await writer.stat()).offset, PIECE_BYTES);
    const rest = layer.subarray(PIECE_BYTES);
    const first = await writer.write(start, rest.subarray(0, 600));
    assert.equal(first.offset, start + 600);
    assert.equal((await writer.stat()).offset, PIECE_BYTES + 600);
    const second = await writer.write(start + 600, rest.subarray(600));
    assert.equal(second.offset, start + 1000);
    const done = await writer.commit({ offset: start + 1000, total, expected: digest });
    assert.equal(done.offset, total);
    assert.ok(layer.equals(door.store.blobs.get(digest)!.bytes));
    assert.deepEqual(door.pull.refuted, []);
  });
}

test('the first answer does not wait for peers, the second does', async () => {
  const door = await doorWith();
  const writer = door.writer();
  await writer.open(ref, total);
  assert.equal(door.pull.ticket().waiting, false);
  let answered = false;
  const second = writer.stat().then(() => (answered = true));
  await settle();
  assert.deepEqual([door.pull.ticket().waiting, answered], [true, false]);
  await completes(door);
  await second;
});

for (const action of ['WRITE', 'COMMIT'] as const) {
  test(`a ${action} from a client that has not asked again waits for nobody and follows the offset it knows`, async () => {
    const door = await doorWith(300);
    const writer = door.writer();
    await writer.open(ref, total);
    const answer = await writer.send({ action, offset: 300, data: layer.subarray(300) });
    assert.equal(answer.offset, total);
    assert.equal(door.pull.ticket().released, 1);
    assert.equal(
      (await door.unary('Info', { digest }).catch(() => null)) !== null,
      action === 'COMMIT',
    );
  });
}

test('a prefix no longer than what the ingest has changes nothing', async () => {
  const door = await doorWith(PIECE_BYTES + 10);
  const writer = door.writer();
  await writer.open(ref, total);
  await givesPrefix(door);
  assert.equal((await writer.stat()).offset, PIECE_BYTES + 10);
  const rest = layer.subarray(PIECE_BYTES + 10);
  assert.equal((await writer.write(PIECE_BYTES + 10, rest)).offset, total);
  await writer.commit({ offset: total, total, expected: digest });
  assert.ok(door.store.info(digest));
});

test('a miss leaves containerd to the registry without a wait', async () => {
  const door = new ContentDoor();
  const writer = door.writer();
  await writer.open(ref, total);
  assert.equal(door.pull.joins, 1);
  assert.equal((await writer.stat()).offset, 0);
  await writer.write(0, layer);
  await writer.commit({ offset: total, total, expected: digest });
  assert.ok(door.store.info(digest));
  assert.equal(door.register.value('content_prefills_total', { outcome: 'miss' }), 1);
});

test('a blob that is here already is taken without a pull', async () => {
  const door = await doorWith();
  door.store.put(layer, 'published');
  const writer = door.writer();
  await writer.open(ref, total);
  assert.equal((await writer.stat()).offset, total);
  await writer.commit({ offset: 0, total, expected: digest });
  assert.equal(door.pull.joins, 0);
  assert.equal(door.store.blobs.get(digest)?.state, 'owned');
});

for (const held of [true, false]) {
  test(`where namespaces are isolated nobody gets a byte by naming a blob, ${held ? 'held here' : 'held by peers'}`, async () => {
    const door = new ContentDoor(undefined, 'isolated');
    door.pull.known.add(digest);
    if (held) door.store.put(layer, 'owned');
    const thief = door.writer();
    assert.equal((await thief.open(ref, total)).offset, 0);
    assert.equal((await thief.stat()).offset, 0);
    await thief.write(0, Buffer.alloc(total));
    await assert.rejects(
      thief.commit({ offset: total, total, expected: digest }),
      withCode('failed_precondition'),
    );
    await thief.close();
    const puller = door.writer();
    await puller.open(ref, total);
    const { offset } = await puller.stat();
    if (offset === 0) await puller.write(0, layer);
    assert.equal(offset, 0);
    assert.equal(door.pull.joins, 0);
  });
}

test('a blob that vanishes after a complete pull counts as nothing delivered', async () => {
  const door = await doorWith();
  const writer = door.writer();
  await writer.open(ref, total);
  door.pull.ticket().settle({ kind: 'complete' });
  assert.equal((await writer.stat()).offset, 0);
  assert.equal(door.register.value('content_prefills_total', { outcome: 'failed' }), 1);
});

test('a prefix that the store cannot take is no error for containerd', async () => {
  const door = await doorWith();
  const writer = door.writer();
  await writer.open(ref, total);
  door.pull.ticket().settle({ kind: 'prefix', staged: { prefix_bytes: 99 } as never, sole: true });
  assert.equal((await writer.stat()).offset, 0);
  assert.equal((await writer.write(0, layer)).offset, total);
  assert.deepEqual(
    door.logger.lines.map((l) => l.level),
    ['warn'],
  );
});

test('a client that goes while waiting frees the ref and its pull at once and keeps the bytes', async () => {
  const door = await doorWith(500);
  const writer = door.writer();
  await writer.open(ref, total);
  const second = writer.stat();
  second.catch(() => undefined);
  await settle(1);
  await writer.reset();
  await assert.rejects(second);
  assert.equal(door.pull.ticket().released, 1);
  assert.equal(door.clock.pending, 0);
  const next = door.writer();
  assert.equal((await next.open(ref, total)).offset, 500);
  const resumed = next.stat();
  await completes(door, 1);
  assert.equal((await resumed).offset, total);
});

test('a client that goes between its first two messages releases its pull', async () => {
  const door = await doorWith();
  const writer = door.writer();
  await writer.open(ref, total);
  await writer.close();
  assert.equal(door.pull.ticket().released, 1);
});

test('a pull that brings no byte for too long is given up', async () => {
  const door = await doorWith();
  const writer = door.writer();
  await writer.open(ref, total);
  const second = writer.stat();
  await door.clock.advance(59_000);
  door.pull.ticket().progress = 10;
  await door.clock.advance(60_000);
  assert.equal(door.pull.ticket().released, 0);
  await door.clock.advance(60_000);
  assert.equal((await second).offset, 0);
  assert.equal(door.pull.ticket().released, 1);
  assert.equal(door.register.value('content_prefills_total', { outcome: 'stalled' }), 1);
});

test('two namespaces that want one blob both get it, and the second hears that it exists', async () => {
  const door = await doorWith();
  const refs = [ref, ref.replace('k8s.io', 'default')];
  const writers = refs.map(() => door.writer());
  for (const [i, writer] of writers.entries()) await writer.open(refs[i]!, total);
  const seconds = writers.map((w) => w.stat());
  await completes(door, 0);
  await completes(door, 1);
  for (const { offset } of await Promise.all(seconds)) assert.equal(offset, total);
  await writers[0]!.commit({ offset: 0, total, expected: digest });
  const late = writers[1]!.commit({ offset: 0, total, expected: digest });
  await assert.rejects(late, withCode('already_exists'));
  assert.deepEqual([...door.store.statuses()], []);
});

test('a second writer of a ref is told to try again', async () => {
  const door = await doorWith();
  await door.writer().open(ref, total);
  await assert.rejects(door.writer().open(ref, total), withCode('unavailable'));
  assert.equal(door.pull.tickets.length, 1);
});

test('a prefix that leads to a wrong digest is held against those who vouched for it', async () => {
  const door = await doorWith();
  const writer = door.writer();
  await writer.open(ref, total);
  await givesPrefix(door, someBytes(total, 7));
  await writer.stat();
  await writer.write(0, layer.subarray(PIECE_BYTES));
  const commit = writer.commit({ offset: 1000, total, expected: digest });
  await assert.rejects(commit, withCode('failed_precondition', /unexpected commit digest/));
  assert.deepEqual(door.pull.refuted, [digest]);
  // The ref is free before the stream has ended, and a retry starts clean.
  assert.equal((await door.writer().open(ref, total)).offset, 0);
});

test('a refuted prefix is traced although another stream finished the ingest', async () => {
  const door = await doorWith();
  const first = door.writer();
  await first.open(ref, total);
  await givesPrefix(door, someBytes(total, 7));
  await first.stat();
  await first.reset();
  door.pull.known.clear();
  const writer = door.writer();
  assert.equal((await writer.open(ref, total)).offset, PIECE_BYTES);
  await writer.write(PIECE_BYTES, layer.subarray(PIECE_BYTES));
  const commit = writer.commit({ offset: total, total, expected: digest });
  await assert.rejects(commit, withCode('failed_precondition'));
  assert.deepEqual(door.pull.refuted, [digest]);
});

const blameless: { id: string; commit: { total?: number; expected?: Digest } }[] = [
  { id: 'a wrong size', commit: { total: total + 1, expected: digest } },
  {
    id: 'a digest other than the ref names',
    commit: { total, expected: digestOf(layer.subarray(1)) },
  },
];
for (const { id, commit } of blameless) {
  test(`nobody is blamed when a commit fails for ${id}`, async () => {
    const door = await doorWith();
    const writer = door.writer();
    await writer.open(ref, total);
    await givesPrefix(door);
    await writer.stat();
    await writer.write(0, layer.subarray(PIECE_BYTES));
    const failed = writer.commit({ offset: 1000, ...commit });
    await assert.rejects(failed, withCode('failed_precondition'));
    assert.deepEqual(door.pull.refuted, []);
  });
}

test('a client that starts again behind a prefix gets an empty ingest', async () => {
  const door = await doorWith(10);
  const writer = door.writer();
  await writer.open(ref, total);
  await givesPrefix(door, someBytes(total, 7));
  await writer.stat();
  assert.equal((await writer.write(0, layer.subarray(0, 100))).offset, 100);
  assert.equal((await writer.write(100, layer.subarray(100))).offset, total);
  await writer.commit({ offset: total, total, expected: digest });
  assert.deepEqual(door.pull.refuted, []);
});

const kinds = [
  { id: 'layer', small: false },
  { id: 'other', small: false },
  { id: 'manifest', small: true },
  { id: 'index', small: true },
  { id: 'config', small: true },
  { id: 'attestation', small: true },
];
for (const { id, small } of kinds) {
  test(`a pull of kind ${id} ${small ? 'must not hold containerd back' : 'may take its time'}`, async () => {
    const door = await doorWith();
    await door.writer().open(`k8s.io/1/${id}-${digest}`, total);
    assert.equal(door.pull.ticket().small, small);
  });
}

test('a small layer must not hold containerd back', async () => {
  const door = new ContentDoor();
  const small = digestOf(layer.subarray(0, 65536));
  door.pull.known.add(small);
  await door.writer().open(`k8s.io/1/layer-${small}`, 65536);
  assert.equal(door.pull.ticket().small, true);
});
