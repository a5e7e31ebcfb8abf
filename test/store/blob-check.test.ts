// What the disk has of a blob, read to its last byte; and what becomes of what it lost.
import assert from 'node:assert/strict';
import {
  chmodSync,
  closeSync,
  mkdirSync,
  openSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { hasCode } from '../../src/base/errors.ts';
import { type Digest, digestOf, hexOf } from '../../src/oci/digest.ts';
import type { LocalStore } from '../../src/store/local-store.ts';
import { commitBytes } from '../contract/blob-store-suite.ts';
import { content, StoreRoom } from './store-room.ts';

const bytes = content(3_000_000);
const DIGEST = digestOf(bytes);
const limits = { signal: new AbortController().signal };

const fileOf = (room: StoreRoom, digest: Digest): string =>
  room.content('blobs/sha256', hexOf(digest));

function turnBit(file: string, at: number): void {
  chmodSync(file, 0o600);
  const fd = openSync(file, 'r+');
  writeSync(fd, Buffer.from([(bytes[at] ?? 0) ^ 1]), 0, 1, at);
  closeSync(fd);
}

const lostOf = (store: LocalStore): Digest[] => [...store.lost()].map(({ digest }) => digest);

async function roomWithBlob(t: Parameters<typeof StoreRoom.make>[0]) {
  const room = await StoreRoom.make(t);
  const store = await room.open();
  await commitBytes(store, bytes);
  const file = fileOf(room, DIGEST);
  const cacheFile = join(room.config.work_directory, 'cache/sha256', hexOf(DIGEST));
  return { store, file, cacheFile, [Symbol.asyncDispose]: () => store[Symbol.asyncDispose]() };
}

test('a right blob is right and stays', async (t) => {
  await using held = await roomWithBlob(t);
  const { store } = held;
  assert.deepEqual(await store.check(DIGEST, limits), { state: 'right', size_bytes: bytes.length });
  assert.deepEqual(lostOf(store), []);
});

for (const at of [0, bytes.length >> 1, bytes.length - 1]) {
  test(`a bit that has turned at ${at} is found, and the blob is lost`, async (t) => {
    await using held = await roomWithBlob(t);
    const { store, file } = held;
    turnBit(file, at);
    assert.equal((await store.check(DIGEST, limits)).state, 'lost');
    assert.deepEqual(lostOf(store), [DIGEST]);
    assert.equal(store.adopt(DIGEST), undefined);
    assert.equal((await store.check(DIGEST, limits)).state, 'lost');
  });
}

test('a file that is gone is lost, a blob that never was is absent', async (t) => {
  await using held = await roomWithBlob(t);
  const { store, file } = held;
  rmSync(file);
  assert.equal((await store.check(DIGEST, limits)).state, 'lost');
  assert.equal((await store.check(digestOf(Buffer.from('x')), limits)).state, 'absent');
});

test('a copy for the peers that is wrong is taken out of service, and nothing is lost', async (t) => {
  await using held = await roomWithBlob(t);
  const { store, cacheFile } = held;
  await store.delete(DIGEST);
  turnBit(cacheFile, 5);
  assert.equal((await store.check(DIGEST, limits)).state, 'cache_wrong');
  assert.deepEqual([lostOf(store), store.info(DIGEST)], [[], undefined]);
});

test('one blob is read at a time, and a read ends when its caller goes', async (t) => {
  await using held = await roomWithBlob(t);
  const { store } = held;
  const first = store.check(DIGEST, limits);
  await assert.rejects(store.check(DIGEST, limits), (error) => hasCode(error, 'unavailable'));
  assert.equal((await first).state, 'right');
  const gone = new AbortController();
  const second = store.check(DIGEST, { signal: gone.signal });
  gone.abort(new Error('gone'));
  await assert.rejects(second, /gone/);
  assert.equal((await store.check(DIGEST, limits)).state, 'right');
});

test("a lost blob is listed, so that containerd's collection can delete it when no image needs it", async (t) => {
  await using held = await roomWithBlob(t);
  const { store, file } = held;
  rmSync(file);
  await store.check(DIGEST, limits);
  assert.deepEqual(
    [...(await store.list())].map(({ digest, size_bytes }) => [digest, size_bytes]),
    [[DIGEST, bytes.length]],
  );
  await store.delete(DIGEST);
  assert.deepEqual([lostOf(store), [...(await store.list())]], [[], []]);
});

test('a lost blob that containerd has forgotten is missed no longer', async (t) => {
  await using held = await roomWithBlob(t);
  const { store, file } = held;
  rmSync(file);
  await store.check(DIGEST, limits);
  store.forgetLost(DIGEST);
  assert.deepEqual(lostOf(store), []);
});

test('a blob that another store put there while we ran is there when containerd asks', async (t) => {
  const room = await StoreRoom.make(t);
  await using store = await room.open();
  assert.equal(store.adopt(DIGEST), undefined);
  mkdirSync(room.content('blobs/sha256'), { recursive: true });
  writeFileSync(fileOf(room, DIGEST), bytes);
  assert.equal(store.adopt(DIGEST)?.size_bytes, bytes.length);
  const reader = await store.open(DIGEST);
  assert.deepEqual(Buffer.from(await reader.read(5, 10)), Buffer.from(bytes.subarray(5, 15)));
  assert.equal((await store.check(DIGEST, limits)).state, 'right');
});
