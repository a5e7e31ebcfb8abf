import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import * as fs from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { type Digest, digestOf, EMPTY_SHA256, hexOf } from '../../src/oci/digest.ts';
import { PIECE_BYTES } from '../../src/piece/layout.ts';
import { formatTime, parseTime } from '../../src/store/disk/timestamps.ts';
import { commitBytes } from '../contract/blob-store-suite.ts';
import { content, StoreRoom, whileRunning, writePieces } from './store-room.ts';

const hello = Buffer.from('hello, containerd');
const HELLO = digestOf(hello);
/** The process's umask, which containerd's modes honour; asking Node for it would set it for a moment. */
function umask(): number {
  const line = /^Umask:\s*(\d+)$/m.exec(fs.readFileSync('/proc/self/status', 'utf8'));
  return Number.parseInt(line?.[1] ?? '0', 8);
}
const ingestDir = (ref: string): string => createHash('sha256').update(ref).digest('hex');

describe('what containerd finds when its own store takes over', () => {
  it('has the names, modes and contents of its own blobs, whatever our own umask', async (t) => {
    const before = process.umask(0o077);
    t.after(() => process.umask(before));
    const room = await StoreRoom.make(t);
    await using store = await room.open();
    await commitBytes(store, hello);
    const file = room.content('blobs', 'sha256', hexOf(HELLO));
    assert.deepEqual(fs.readFileSync(file), hello);
    const mode = (path: string): string => (fs.statSync(path).mode & 0o7777).toString(8);
    assert.equal(mode(file), '444');
    for (const names of [['blobs'], ['blobs', 'sha256'], ['ingest']]) {
      assert.equal(mode(room.content(...names)), '755');
    }
    assert.deepEqual(fs.readdirSync(room.content('ingest')), []);
  });

  it('has the files of its own ingests, which it can go on with', async (t) => {
    const room = await StoreRoom.make(t);
    await using store = await room.open();
    await using ingest = await store.ingest('k8s.io/1/layer-x', { total_bytes: 99 });
    await ingest.write(hello);
    const dir = room.content('ingest', ingestDir('k8s.io/1/layer-x'));
    const read = (name: string): string => fs.readFileSync(join(dir, name), 'utf8');
    assert.deepEqual(fs.readdirSync(dir).sort(), [
      'data',
      'ref',
      'startedat',
      'total',
      'updatedat',
    ]);
    assert.deepEqual(
      [read('ref'), read('total'), read('data')],
      ['k8s.io/1/layer-x', '99', hello.toString()],
    );
    assert.equal(parseTime(read('startedat')), ingest.status().started_ns);
    assert.equal(fs.statSync(join(dir, 'data')).mode & 0o777, 0o666 & ~umask());
    assert.equal(fs.statSync(dir).mode & 0o777, 0o755);
  });

  it('finds times as Go writes them', () => {
    const cases = [
      { text: '2024-02-29T12:00:00Z', ns: 1_709_208_000_000_000_000n },
      { text: '2024-02-29T12:00:00.5Z', ns: 1_709_208_000_500_000_000n },
      { text: '2024-02-29T12:00:00.000000001Z', ns: 1_709_208_000_000_000_001n },
    ];
    for (const { text, ns } of cases) {
      assert.equal(formatTime(ns), text);
      assert.equal(parseTime(text), ns);
    }
    assert.equal(parseTime('2024-02-29T13:00:00+01:00'), 1_709_208_000_000_000_000n);
    for (const bad of ['', 'yesterday', '2024-13-40T99:00:00Z'])
      assert.equal(parseTime(bad), undefined);
  });
});

describe('a store opened on what is there', () => {
  it('owns the blobs of containerd and passes over everything it does not know', async (t) => {
    const room = await StoreRoom.make(t);
    fs.mkdirSync(room.content('blobs', 'sha256'), { recursive: true });
    fs.mkdirSync(room.content('blobs', 'blake3'));
    fs.mkdirSync(room.content('ingest', 'strange'), { recursive: true });
    const strange = [
      room.content('blobs', 'sha256', 'README'),
      room.content('blobs', 'blake3', 'ab'),
      room.content('blobs', 'note'),
      room.content('ingest', 'strange', 'ref'),
    ];
    for (const path of strange) fs.writeFileSync(path, 'x');
    fs.writeFileSync(room.content('blobs', 'sha256', hexOf(HELLO)), hello);
    await using store = await room.open();
    assert.deepEqual(
      [...(await store.list())].map(({ digest, size_bytes }) => [digest, size_bytes]),
      [[HELLO, hello.length]],
    );
    assert.deepEqual([...store.statuses()], []);
    for (const path of strange) assert.ok(fs.existsSync(path), path);
  });

  it('removes an ingest directory that a power cut left without its ref', async (t) => {
    const room = await StoreRoom.make(t);
    const broken = [ingestDir('a'), ingestDir('b')].map((name) => room.content('ingest', name));
    for (const [index, path] of broken.entries()) {
      fs.mkdirSync(path, { recursive: true });
      fs.writeFileSync(join(path, 'data'), 'x');
      if (index === 0) fs.writeFileSync(join(path, 'ref'), '');
    }
    await using store = await room.open();
    await store.settled();
    assert.deepEqual([...store.statuses()], []);
    assert.deepEqual(
      broken.map((path) => fs.existsSync(path)),
      [false, false],
    );
  });

  it('resumes an ingest that containerd began: offset at once, digest when ready', async (t) => {
    const room = await StoreRoom.make(t);
    const dir = room.content('ingest', ingestDir('ref'));
    fs.mkdirSync(dir, { recursive: true });
    const files = {
      ref: 'ref',
      startedat: '2024-02-29T12:00:00Z',
      updatedat: '2024-02-29T12:00:00.25Z',
      total: '17',
      data: hello.subarray(0, 9),
    };
    for (const [name, text] of Object.entries(files)) fs.writeFileSync(join(dir, name), text);
    await using store = await room.open();
    assert.equal(store.status('ref')?.started_ns, 1_709_208_000_000_000_000n);
    await using ingest = await store.ingest('ref', { total_bytes: 17 });
    assert.deepEqual([ingest.status().offset_bytes, ingest.digest()], [9, '']);
    await ingest.ready(t.signal);
    assert.equal(ingest.digest(), digestOf(hello.subarray(0, 9)));
    await ingest.write(hello.subarray(9));
    await ingest.commit({ size_bytes: 17, expected: HELLO, labels: {} });
    assert.equal(room.register.value('store_hash_rebuild_bytes_total'), 9);
  });

  it('takes bytes before the running hash is there again', async (t) => {
    const room = await StoreRoom.make(t);
    const bytes = content(PIECE_BYTES + 5000);
    {
      await using store = await room.open();
      await using ingest = await store.ingest('ref', { total_bytes: bytes.length });
      await ingest.write(bytes.subarray(0, PIECE_BYTES - 3));
    }
    await using store = await room.open();
    await using ingest = await store.ingest('ref', { total_bytes: bytes.length });
    const ready = ingest.ready(t.signal);
    await ingest.write(bytes.subarray(PIECE_BYTES - 3));
    await ready;
    await ingest.ready(t.signal);
    assert.equal(ingest.digest(), digestOf(bytes));
    await ingest.commit({ size_bytes: 0, expected: digestOf(bytes), labels: {} });
    assert.equal((await store.readPiece(digestOf(bytes), 1)).length, 5000);
  });

  it('hashes found ingests in the background, and reads nothing again on a resume in the same process', async (t) => {
    const room = await StoreRoom.make(t);
    {
      await using store = await room.open();
      await using ingest = await store.ingest('ref', { total_bytes: 0 });
      await ingest.write(hello);
      await ingest[Symbol.asyncDispose]();
      await using again = await store.ingest('ref', { total_bytes: 0 });
      assert.equal(again.digest(), HELLO);
      assert.equal(room.register.value('store_hash_rebuild_bytes_total'), 0);
    }
    await using store = await room.open();
    await whileRunning(store, async () => {
      // Rehashing begins at once; the ingest's own wait joins it.
      await using ingest = await store.ingest('ref', { total_bytes: 0 });
      await ingest.ready(t.signal);
      assert.equal(ingest.digest(), HELLO);
    });
    assert.equal(room.register.value('store_hash_rebuild_bytes_total'), hello.length);
  });

  it('goes on from the file when it was truncated meanwhile, and starts again when it is too long', async (t) => {
    const room = await StoreRoom.make(t);
    {
      await using store = await room.open();
      await using ingest = await store.ingest('ref', { total_bytes: 17 });
      await ingest.write(hello.subarray(0, 12));
    }
    const data = room.content('ingest', ingestDir('ref'), 'data');
    fs.truncateSync(data, 4);
    {
      await using store = await room.open();
      await using ingest = await store.ingest('ref', { total_bytes: 17 });
      assert.equal(ingest.status().offset_bytes, 4);
      await ingest.ready(t.signal);
      assert.equal(ingest.digest(), digestOf(hello.subarray(0, 4)));
    }
    fs.appendFileSync(data, 'more than seventeen bytes');
    await using store = await room.open();
    await using ingest = await store.ingest('ref', { total_bytes: 17 });
    assert.deepEqual([ingest.status().offset_bytes, ingest.digest()], [0, EMPTY_SHA256]);
    await ingest.ready(t.signal);
    assert.equal(fs.statSync(data).size, 0);
  });

  it('keeps labels, the cache and piece lists over a restart', async (t) => {
    const room = await StoreRoom.make(t);
    const bytes = content(PIECE_BYTES + 1);
    let digest: Digest;
    {
      await using store = await room.open();
      await commitBytes(store, hello, { a: '1' });
      digest = await commitBytes(store, bytes);
      await store.delete(digest);
    }
    await using store = await room.open();
    assert.deepEqual(store.info(HELLO)?.labels, { a: '1' });
    assert.deepEqual(
      [...(await store.list())].map((info) => info.digest),
      [HELLO],
    );
    await whileRunning(store, () => store.listed());
    assert.deepEqual(new Set(store.shared()), new Set([HELLO, digest]));
    assert.equal(room.register.value('store_backfill_bytes_total'), 0);
  });

  it('wipes what staging held and forgets an adoption that was not committed', async (t) => {
    const room = await StoreRoom.make(t);
    const staging = join(room.config.work_directory, 'staging');
    {
      await using store = await room.open();
      await commitBytes(store, hello);
      await store.delete(HELLO);
      await store.restore(HELLO);
      await using ingest = await store.ingest('ref', { total_bytes: hello.length });
      await ingest.adopt(HELLO);
      fs.writeFileSync(join(staging, 'staged-by-a-killed-daemon'), 'x');
    }
    await using store = await room.open();
    assert.deepEqual(fs.readdirSync(staging), []);
    assert.equal(store.status('ref'), undefined);
    // It lies under blobs/: containerd may have taken it in the last moment, and deletes it otherwise.
    assert.equal([...(await store.list())].length, 1);
    await store[Symbol.asyncDispose]();
    const left = fs.readdirSync(room.config.work_directory);
    assert.deepEqual(
      left.filter((name) => name.startsWith('staging-old')),
      [],
    );
  });
});

describe('the background pass', () => {
  it('computes the lists of blobs that came without one, once', async (t) => {
    const room = await StoreRoom.make(t);
    const bytes = content(2 * PIECE_BYTES);
    const digest = digestOf(bytes);
    fs.mkdirSync(room.content('blobs', 'sha256'), { recursive: true });
    fs.writeFileSync(room.content('blobs', 'sha256', hexOf(digest)), bytes);
    for (const expected of [bytes.length, bytes.length]) {
      await using store = await room.open();
      assert.deepEqual([...store.shared()], []);
      await whileRunning(store, () => store.listed());
      assert.deepEqual([...store.shared()], [digest]);
      assert.equal((await store.pieceList(digest)).digests.length, 64);
      assert.equal(room.register.value('store_backfill_bytes_total'), expected);
    }
  });

  it('quarantines a blob whose digest disagrees, and remembers that containerd lost it', async (t) => {
    const room = await StoreRoom.make(t);
    const bytes = content(2 * PIECE_BYTES);
    const digest = digestOf(bytes);
    fs.mkdirSync(room.content('blobs', 'sha256'), { recursive: true });
    fs.writeFileSync(room.content('blobs', 'sha256', hexOf(digest)), content(2 * PIECE_BYTES, 9));
    {
      await using store = await room.open();
      await whileRunning(store, () => store.listed());
      assert.equal(store.info(digest), undefined);
      assert.deepEqual([...store.lost()], [{ digest, size_bytes: bytes.length }]);
      assert.equal(fs.readdirSync(join(room.config.work_directory, 'quarantine')).length, 1);
    }
    await using store = await room.open();
    assert.deepEqual([...store.lost()], [{ digest, size_bytes: bytes.length }]);
    await using staged = await store.stage(digest, bytes.length);
    await writePieces(staged, bytes);
    await staged.publish();
    assert.deepEqual([...store.lost()], []);
    assert.deepEqual(
      [...(await store.list())].map((info) => info.digest),
      [digest],
    );
  });
});
