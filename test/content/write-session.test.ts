import assert from 'node:assert/strict';
import { test } from 'node:test';
import { digestOf, EMPTY_SHA256 } from '../../src/oci/digest.ts';
import { ContentDoor, someBytes, withCode } from './content-door.ts';
import { digest, doorWith, layer, ref, total } from './pulled-layer.ts';

const ineligible: { id: string; ref: string; total: number }[] = [
  { id: 'no size', ref, total: 0 },
  { id: 'no digest', ref: 'k8s.io/1/some/ref/with/slashes', total },
  { id: 'a digest of its source', ref: `k8s.io/1/convert-uncompress-from-${digest}`, total },
  {
    id: 'a path that looks like a digest',
    ref: `k8s.io/1/tar-blobs/sha256/${digest.slice(7)}`,
    total,
  },
  {
    id: 'an algorithm that peers do not use',
    ref: `k8s.io/1/layer-sha512:${'ab'.repeat(64)}`,
    total,
  },
];
for (const row of ineligible) {
  test(`a ref with ${row.id} is a plain write from offset 0`, async () => {
    const door = await doorWith();
    const writer = door.writer();
    assert.equal((await writer.open(row.ref, row.total)).offset, 0);
    assert.equal((await writer.stat()).offset, 0);
    assert.equal((await writer.write(0, layer)).offset, total);
    assert.equal((await writer.commit({ offset: total, labels: { a: 'b' } })).digest, digest);
    assert.equal(door.pull.joins, 0);
    assert.deepEqual(door.store.info(digest)?.labels, { a: 'b' });
  });
}

test('a stream that begins with a write joins no pull', async () => {
  const door = await doorWith();
  const writer = door.writer();
  const first = await writer.send({ action: 'WRITE', ref, total, data: layer.subarray(0, 10) });
  assert.deepEqual([first.action, first.offset], ['WRITE', 10]);
  assert.equal(door.pull.joins, 0);
});

const kindsWithChildren = [
  { id: 'manifest', told: true },
  { id: 'index', told: true },
  { id: 'config', told: false },
];
for (const { id, told } of kindsWithChildren) {
  test(`a committed ${id} ${told ? 'starts' : 'does not start'} the pulls of what it names`, async () => {
    const door = new ContentDoor();
    const bytes = someBytes(100);
    const d = digestOf(bytes);
    const writer = door.writer();
    await writer.open(`k8s.io/1/${id}-${d}`, 100);
    await writer.write(0, bytes);
    await writer.commit({ offset: 100, total: 100, expected: d });
    assert.deepEqual(door.pull.manifests, told ? [d] : []);
  });
}

test('a plain write keeps to the current offset, and 0 starts again', async () => {
  const door = new ContentDoor();
  const writer = door.writer();
  const opened = await writer.open('c1', 0);
  assert.deepEqual([opened.action, opened.digest, opened.last], ['STAT', EMPTY_SHA256, false]);
  await writer.write(0, layer.subarray(0, 100));
  const gap = writer.write(50, layer.subarray(0, 1));
  await assert.rejects(
    gap,
    withCode('out_of_range', /^write @50 must occur at current offset 100$/),
  );
  const behind = writer.commit({ offset: 101 });
  await assert.rejects(behind, withCode('out_of_range'));
  assert.equal((await writer.write(0, layer.subarray(0, 7))).offset, 7);
  const stat = await writer.stat();
  assert.deepEqual([stat.offset, stat.digest], [7, digestOf(layer.subarray(0, 7))]);
});

test('a commit may carry data, and size and digest said earlier stay in force', async () => {
  const door = new ContentDoor();
  const writer = door.writer();
  const bytes = layer.subarray(0, 100);
  await writer.send({ action: 'STAT', ref: 'c1', total: 100, expected: digestOf(bytes) });
  await writer.write(0, bytes.subarray(0, 60));
  assert.equal((await writer.commit({ offset: 60, data: bytes.subarray(60) })).offset, 100);
  assert.ok(door.store.info(digestOf(bytes)));
});

const refused = [
  { id: 'size', request: { total: 99 }, message: /^unexpected commit size 100, expected 99$/ },
  {
    id: 'digest',
    request: { expected: EMPTY_SHA256 },
    message: /^unexpected commit digest sha256:\w+, expected/,
  },
];
for (const { id, request, message } of refused) {
  test(`a commit with a wrong ${id} is refused`, async () => {
    const door = new ContentDoor();
    const writer = door.writer();
    await writer.open('c1');
    await writer.write(0, layer.subarray(0, 100));
    const commit = writer.commit({ offset: 100, ...request });
    await assert.rejects(commit, withCode('failed_precondition', message));
  });
}

test('a blob that is here is never reported before the commit', async () => {
  const door = new ContentDoor();
  const existing = door.store.put(layer.subarray(0, 100));
  const writer = door.writer();
  await writer.send({ action: 'STAT', ref: 'c1', total: 100, expected: existing });
  await writer.stat();
  await writer.write(0, layer.subarray(0, 100));
  const commit = writer.commit({ offset: 100, total: 100, expected: existing });
  await assert.rejects(commit, withCode('already_exists'));
  assert.equal(door.store.status('c1'), undefined);
});

const openings: { id: string; request: object; message?: RegExp }[] = [
  { id: 'no ref', request: { action: 'STAT' }, message: /^first message must have a reference$/ },
  { id: 'an endless ref', request: { ref: 'x'.repeat(5000) } },
  { id: 'a digest that is none', request: { ref: 'c1', expected: 'sha256:zz' } },
  { id: 'an unknown action', request: { ref: 'c1', action: 7 } },
];
for (const { id, request, message } of openings) {
  test(`a first message with ${id} is refused`, async () => {
    const door = new ContentDoor();
    const writer = door.writer();
    await assert.rejects(writer.send(request), withCode('invalid_argument', message));
    await writer.close();
    assert.deepEqual([...door.store.statuses()], []);
  });
}

test('an ingest that is aborted under its writer ends the stream', async () => {
  const door = new ContentDoor();
  const writer = door.writer();
  await writer.open('c1');
  await door.unary('Abort', { ref: 'c1' });
  await assert.rejects(writer.write(0, layer), withCode('not_found'));
});

test('a full disk fails the write and not the next one', async () => {
  const door = new ContentDoor();
  const writer = door.writer();
  await writer.open('c1');
  door.store.full = true;
  await assert.rejects(writer.write(0, layer), withCode('resource_exhausted'));
  door.store.full = false;
  assert.equal((await writer.stat()).offset, 0);
});
