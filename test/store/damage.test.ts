import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import * as fs from 'node:fs';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { type ErrorCode, hasCode } from '../../src/base/errors.ts';
import { digestOf, hexOf } from '../../src/oci/digest.ts';
import { PIECE_BYTES } from '../../src/piece/layout.ts';
import { QUARANTINE_MAX_FILES } from '../../src/store/blobs/quarantine.ts';
import { commitBytes } from '../contract/blob-store-suite.ts';
import { FakeClock } from '../fakes/fake-clock.ts';
import { content, pieceOf, scratch, StoreRoom, whileRunning } from './store-room.ts';

const hello = Buffer.from('hello, containerd');
const HELLO = digestOf(hello);
const MIB = 1024 * 1024;

const rejects = (work: Promise<unknown>, code: ErrorCode, text?: RegExp): Promise<void> =>
  assert.rejects(
    work,
    (error) => hasCode(error, code) && (text === undefined || text.test(error.message)),
  );

/** A memory file system of the test's own. Only root may mount; in CI that must be so. */
async function mounted(t: TestContext, options: string): Promise<string | undefined> {
  if (process.getuid?.() !== 0) {
    assert.notEqual(process.env['CI'], 'true', 'this test needs root to mount a tmpfs');
    t.skip('needs root to mount a tmpfs');
    return undefined;
  }
  const dir = await scratch(t);
  execFileSync('mount', ['-t', 'tmpfs', '-o', options, 'layerswarm-test', dir]);
  return dir;
}

/** Runs `work` on a mounted tmpfs and unmounts it. */
async function onTmpfs(
  t: TestContext,
  options: string,
  work: (dir: string) => Promise<void>,
): Promise<void> {
  const dir = await mounted(t, options);
  if (dir === undefined) return;
  try {
    await work(dir);
  } finally {
    execFileSync('umount', [dir]);
  }
}

describe('a disk that fills up', () => {
  it('fails the write, keeps what was there before, and lets the ingest go on', (t) =>
    onTmpfs(t, 'size=6m', async (dir) => {
      const room = await StoreRoom.make(t, { content_directory: join(dir, 'content') });
      await using store = await room.open();
      const bytes = content(9 * MIB);
      await using ingest = await store.ingest('ref', { total_bytes: 0 });
      await ingest.write(bytes.subarray(0, 3 * MIB));
      await rejects(ingest.write(bytes.subarray(3 * MIB)), 'resource_exhausted');
      const data = room.content('ingest', createHash('sha256').update('ref').digest('hex'), 'data');
      assert.equal(fs.statSync(data).size, 3 * MIB);
      assert.equal(ingest.status().offset_bytes, 3 * MIB);
      assert.equal(ingest.digest(), digestOf(bytes.subarray(0, 3 * MIB)));
      await ingest.write(bytes.subarray(3 * MIB, 4 * MIB));
      const whole = bytes.subarray(0, 4 * MIB);
      await ingest.commit({ size_bytes: 4 * MIB, expected: digestOf(whole), labels: {} });
      const piece = await store.readPiece(digestOf(whole), 0);
      assert.equal(Buffer.compare(piece, whole), 0);
    }));

  it('fails a staged piece and a copied prefix without losing what is there', (t) =>
    onTmpfs(t, 'size=10m', async (dir) => {
      const directory = { content_directory: join(dir, 'content') };
      const free = (): Promise<number> => Promise.resolve(2 ** 40);
      const room = await StoreRoom.make(t, directory, { free });
      await using store = await room.open();
      const bytes = content(3 * PIECE_BYTES);
      // While there is room for it.
      await using ingest = await store.ingest('ref', { total_bytes: 0 });
      await ingest.write(hello);
      await using staged = await store.stage(digestOf(bytes), bytes.length);
      await staged.write(pieceOf(bytes, 0));
      await staged.write(pieceOf(bytes, 1));
      await rejects(staged.write(pieceOf(bytes, 2)), 'resource_exhausted');
      assert.deepEqual([staged.has(2), staged.prefix_bytes], [false, 2 * PIECE_BYTES]);
      await rejects(ingest.takePrefix(staged, { move: false }), 'resource_exhausted');
      assert.equal(ingest.digest(), HELLO);
      await ingest.takePrefix(staged, { move: true });
      assert.equal(ingest.status().offset_bytes, 2 * PIECE_BYTES);
      assert.equal(ingest.digest(), digestOf(bytes.subarray(0, 2 * PIECE_BYTES)));
    }));

  it('is not announced below its floor, evicts cache, refuses staging, and comes back above', async (t) => {
    const clock = new FakeClock();
    let free = 1000 * MIB;
    const room = await StoreRoom.make(
      t,
      { disk_floor_bytes: 100 * MIB },
      { clock, free: () => Promise.resolve(free) },
    );
    await using store = await room.open();
    await commitBytes(store, hello);
    const cached = await commitBytes(store, Buffer.from('not needed'));
    await store.delete(cached);
    await whileRunning(store, async () => {
      const events: string[] = [];
      store.onShared(({ kind, digest }) => void events.push(`${kind} ${digest}`));
      await rejects(store.stage(digestOf(Buffer.from('x')), 950 * MIB), 'resource_exhausted');
      free = 99 * MIB;
      await clock.advance(2000);
      assert.equal(store.cached(cached), undefined);
      assert.deepEqual([...store.shared()], []);
      assert.ok(events.includes(`removed ${HELLO}`));
      await rejects(store.stage(digestOf(Buffer.from('x')), 1), 'resource_exhausted');
      // containerd's own writes are still tried.
      await commitBytes(store, Buffer.from('needed'));
      free = 105 * MIB;
      await clock.advance(2000);
      assert.deepEqual([...store.shared()], [], 'not yet: a tenth above the floor');
      free = 120 * MIB;
      await clock.advance(2000);
      assert.equal([...store.shared()].length, 2);
      assert.ok(events.includes(`added ${HELLO}`));
    });
    assert.equal(room.register.value('store_evictions_total', { reason: 'disk' }), 1);
  });
});

describe('directories that cannot be used', () => {
  it('are named: a read-only one, a missing one, and one on another file system', (t) =>
    onTmpfs(t, 'size=1m', async (dir) => {
      const room = await StoreRoom.make(t);
      await rejects(
        room.open({ work_directory: join(dir, 'work') }),
        'failed_precondition',
        /work directory .* file system/,
      );
      const absent = { content_directory: join(dir, 'absent'), create_content_directory: false };
      await rejects(room.open(absent), 'failed_precondition', /absent does not exist; containerd/);
      fs.mkdirSync(join(dir, 'content'));
      execFileSync('mount', ['-o', 'remount,ro', dir]);
      await rejects(room.open({ content_directory: join(dir, 'content') }), 'permission_denied');
      await (await room.open())[Symbol.asyncDispose]();
    }));
});

describe('a damaged blob', () => {
  const bytes = content(2 * PIECE_BYTES);
  const digest = digestOf(bytes);

  /** Overwrites one byte of a committed blob, keeping its times. */
  function corrupt(room: StoreRoom, offset: number): void {
    const path = room.content('blobs', 'sha256', hexOf(digest));
    const { atime, mtime } = fs.statSync(path);
    fs.chmodSync(path, 0o644);
    const fd = fs.openSync(path, 'r+');
    fs.writeSync(fd, Buffer.from([0xff]), 0, 1, offset);
    fs.closeSync(fd);
    fs.utimesSync(path, atime, mtime);
  }

  it('never reaches a peer: the piece fails, the blob is quarantined, withdrawn and reported lost', async (t) => {
    const room = await StoreRoom.make(t);
    await using store = await room.open();
    await commitBytes(store, bytes);
    corrupt(room, PIECE_BYTES + 7);
    const seen: string[] = [];
    store.onShared(({ kind }) => void seen.push(kind));
    store.onLost((blob) => void seen.push(`lost ${blob.size_bytes}`));
    assert.equal((await store.readPiece(digest, 0)).length, PIECE_BYTES);
    await rejects(store.readPiece(digest, 1), 'data_loss');
    assert.deepEqual(seen, ['removed', `lost ${bytes.length}`]);
    assert.equal(store.info(digest), undefined);
    await rejects(store.readPiece(digest, 0), 'not_found');
    await rejects(store.open(digest), 'not_found');
    assert.equal(room.logger.lines.filter(({ level }) => level === 'error').length, 1);
    assert.equal(room.register.value('store_quarantined_total', { reason: 'corrupt' }), 1);
    await store.delete(digest);
    assert.deepEqual([...store.lost()], []);
  });

  it('checks a piece once per process, and again when somebody doubts it', async (t) => {
    const room = await StoreRoom.make(t);
    await using store = await room.open();
    await commitBytes(store, bytes);
    await store.readPiece(digest, 1);
    corrupt(room, PIECE_BYTES + 7);
    assert.equal((await store.readPiece(digest, 1))[7], 0xff);
    // Whoever doubts it gets it compared again.
    await rejects(store.readPiece(digest, 1, { doubted: true }), 'data_loss');
    assert.deepEqual([...store.lost()], [{ digest, size_bytes: bytes.length }]);
  });

  it('is not adopted when its file is shorter or gone', async (t) => {
    const room = await StoreRoom.make(t);
    await using store = await room.open();
    await commitBytes(store, bytes);
    await commitBytes(store, hello);
    fs.truncateSync(room.content('blobs', 'sha256', hexOf(digest)), 100);
    fs.rmSync(room.content('blobs', 'sha256', hexOf(HELLO)));
    assert.equal(store.adopt(digest), undefined);
    assert.equal(store.adopt(HELLO), undefined);
    assert.deepEqual(
      [...store.lost()].map((blob) => blob.digest),
      [digest, HELLO],
    );
    await commitBytes(store, hello);
    assert.deepEqual(
      [...store.lost()].map((blob) => blob.digest),
      [digest],
    );
  });

  it('takes back the offset of an ingest that had adopted it', async (t) => {
    const room = await StoreRoom.make(t);
    await using store = await room.open();
    await commitBytes(store, hello);
    await store.delete(HELLO);
    await store.restore(HELLO);
    await using ingest = await store.ingest('ref', { total_bytes: hello.length });
    await ingest.adopt(HELLO);
    fs.truncateSync(room.content('blobs', 'sha256', hexOf(HELLO)), 1);
    assert.equal(store.adopt(HELLO), undefined);
    assert.equal(ingest.status().offset_bytes, 0);
    await ingest.write(hello);
    await ingest.commit({ size_bytes: hello.length, expected: HELLO, labels: {} });
    assert.equal(store.adopt(HELLO)?.size_bytes, hello.length);
  });

  it('is kept for inspection, the latest few of them', async (t) => {
    const room = await StoreRoom.make(t);
    await using store = await room.open();
    for (let i = 0; i < QUARANTINE_MAX_FILES + 3; i++) {
      const one = await commitBytes(store, Buffer.from(`blob ${i}`));
      fs.truncateSync(room.content('blobs', 'sha256', hexOf(one)), 1);
      store.adopt(one);
    }
    const kept = fs.readdirSync(join(room.config.work_directory, 'quarantine'));
    assert.equal(kept.length, QUARANTINE_MAX_FILES);
  });

  it('fails a read beyond a truncated end with data_loss', async (t) => {
    const room = await StoreRoom.make(t);
    await using store = await room.open();
    await commitBytes(store, bytes);
    const reader = await store.open(digest);
    fs.truncateSync(room.content('blobs', 'sha256', hexOf(digest)), 100);
    await rejects(reader.read(PIECE_BYTES, 32 * 1024), 'data_loss');
  });
});
