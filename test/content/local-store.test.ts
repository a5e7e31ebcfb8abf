import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { systemClock } from '../../src/base/clock.ts';
import { digestOf } from '../../src/oci/digest.ts';
import { PIECE_BYTES, pieceCount } from '../../src/piece/layout.ts';
import type { VerifiedPiece } from '../../src/piece/verified-piece.ts';
import type { StagedBlob } from '../../src/store/blob-store.ts';
import { LocalStore } from '../../src/store/local-store.ts';
import { storeConfig } from '../../src/store/store-config.ts';
import { MemoryLogger } from '../fakes/memory-logger.ts';
import { MemoryRegister } from '../fakes/memory-register.ts';
import { ContentDoor, someBytes } from './content-door.ts';

const layer = someBytes(2 * PIECE_BYTES + 777, 5);
const digest = digestOf(layer);
const ref = `k8s.io/1/layer-${digest}`;
const total = layer.length;

async function directory(t: TestContext): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'content-'));
  t.after(() => rm(path, { recursive: true, force: true }));
  return path;
}

async function openStore(root: string): Promise<LocalStore> {
  const config = storeConfig({
    content_directory: join(root, 'content'),
    state_directory: join(root, 'state'),
    cache_max_bytes: 2 ** 30,
    disk_floor_bytes: 0,
    create_content_directory: true,
  });
  const modules = {
    clock: systemClock,
    logger: new MemoryLogger(),
    register: new MemoryRegister(),
  };
  return LocalStore.open(modules, config);
}

async function stage(store: LocalStore, pieces: number): Promise<StagedBlob> {
  const staged = await store.stage(digest, total);
  for (let index = 0; index < pieces; index++) {
    const bytes = layer.subarray(index * PIECE_BYTES, (index + 1) * PIECE_BYTES);
    const sha256 = createHash('sha256').update(bytes).digest();
    await staged.write({ index, bytes, sha256 } as unknown as VerifiedPiece);
  }
  return staged;
}

async function assertCommitted(root: string): Promise<void> {
  const file = join(root, 'content/blobs/sha256', digest.slice('sha256:'.length));
  assert.ok(layer.equals(await readFile(file)));
  assert.deepEqual(await readdir(join(root, 'content/ingest')), []);
}

for (const start of [0, 1000]) {
  test(`a blob from peers lands in containerd's directory, starting at ${start}`, async (t) => {
    const root = await directory(t);
    await using store = await openStore(root);
    const door = new ContentDoor(store);
    door.pull.known.add(digest);
    if (start > 0) {
      const earlier = door.writer();
      await earlier.open(ref, total);
      await earlier.write(0, layer.subarray(0, start));
      await earlier.close();
    }
    const writer = door.writer();
    assert.equal((await writer.open(ref, total)).offset, start);
    await using staged = await stage(store, pieceCount(total));
    await staged.publish();
    door.pull.tickets.at(-1)?.settle({ kind: 'complete' });
    const { offset, digest: running } = await writer.stat();
    assert.deepEqual([offset, running], [total, digest]);
    await writer.commit({ offset: start, total, expected: digest });
    await writer.close();
    await assertCommitted(root);
  });

  for (const sole of [true, false]) {
    const way = sole ? 'moved' : 'copied';
    test(`a ${way} prefix from peers is continued by containerd, starting at ${start}`, async (t) => {
      const root = await directory(t);
      await using store = await openStore(root);
      const door = new ContentDoor(store);
      door.pull.known.add(digest);
      const writer = door.writer();
      const first = { action: 'WRITE' as const, ref, total, data: layer.subarray(0, start) };
      if (start > 0) {
        const earlier = door.writer();
        await earlier.send(first);
        await earlier.close();
      }
      assert.equal((await writer.open(ref, total)).offset, start);
      await using staged = await stage(store, 1);
      door.pull.tickets.at(-1)?.settle({ kind: 'prefix', staged, sole });
      assert.equal((await writer.stat()).offset, PIECE_BYTES);
      const rest = layer.subarray(PIECE_BYTES);
      assert.equal((await writer.write(start, rest)).offset, start + rest.length);
      await writer.stat();
      await writer.commit({ offset: start + rest.length, total, expected: digest });
      await writer.close();
      await assertCommitted(root);
    });
  }
}

test('an ingest of an earlier process answers at once with its offset and later with its digest', async (t) => {
  const root = await directory(t);
  {
    await using store = await openStore(root);
    const writer = new ContentDoor(store).writer();
    await writer.open(ref, total);
    await writer.write(0, layer.subarray(0, PIECE_BYTES));
    await writer.close();
  }
  await using store = await openStore(root);
  const writer = new ContentDoor(store).writer();
  const first = await writer.open(ref, total);
  assert.deepEqual([first.offset, first.digest], [PIECE_BYTES, '']);
  assert.equal((await writer.stat()).digest, digestOf(layer.subarray(0, PIECE_BYTES)));
  await writer.write(PIECE_BYTES, layer.subarray(PIECE_BYTES));
  await writer.commit({ offset: total, total, expected: digest });
  await writer.close();
  await assertCommitted(root);
});

test('a sequential reader soon reads from memory', async (t) => {
  const root = await directory(t);
  await using store = await openStore(root);
  const door = new ContentDoor(store);
  const writer = door.writer();
  await writer.send({ action: 'WRITE', ref: 'c1', data: layer });
  await writer.commit({ offset: total });
  await writer.close();
  const size = 32768;
  let immediate = 0;
  for (let offset = 0; offset < total; offset += size) {
    const found = door.immediate({ digest, offset, size });
    if (found) immediate += 1;
    const chunks = found ? found.answers : await door.stream('Read', { digest, offset, size });
    const data = Buffer.concat(chunks.map((c) => c['data'] as Buffer));
    assert.ok(data.equals(layer.subarray(offset, offset + size)), `at ${offset}`);
  }
  const share = immediate / Math.ceil(total / size);
  assert.ok(share > 0.5, `only ${Math.round(share * 100)} % of the reads were immediate`);
});
