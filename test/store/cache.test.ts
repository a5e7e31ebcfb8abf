import assert from 'node:assert/strict';
import * as fs from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { hasCode } from '../../src/base/errors.ts';
import { type Digest, digestOf, hexOf } from '../../src/oci/digest.ts';
import { WINDOW_BYTES } from '../../src/store/blobs/blob-reader.ts';
import { ARRIVAL_KEEP_MS } from '../../src/store/blobs/cache-folder.ts';
import { type Files, systemFiles } from '../../src/store/disk/files.ts';
import type { LocalStore } from '../../src/store/local-store.ts';
import { commitBytes } from '../contract/blob-store-suite.ts';
import { FakeClock } from '../fakes/fake-clock.ts';
import { content, StoreRoom, writePieces } from './store-room.ts';

const cachePath = (room: StoreRoom, digest: Digest): string =>
  join(room.config.work_directory, 'cache', 'sha256', hexOf(digest));

async function demoted(store: LocalStore, seed: number): Promise<Digest> {
  const digest = await commitBytes(store, content(1000, seed));
  await store.delete(digest);
  return digest;
}

/** A blob that containerd wrote whole and then gave up. */
async function abandoned(
  store: LocalStore,
  before: () => Promise<void> = () => Promise.resolve(),
): Promise<Digest> {
  const bytes = content(1000);
  const ingest = await store.ingest('ref', { total_bytes: bytes.length });
  await ingest.write(bytes);
  await ingest[Symbol.asyncDispose]();
  await store.settled();
  await before();
  await store.abort('ref');
  return digestOf(bytes);
}

describe('the cache', () => {
  it('loses the longest unused blob first when it outgrows its budget, and never an owned one', async (t) => {
    const room = await StoreRoom.make(t, { cache_max_bytes: 2500 });
    await using store = await room.open();
    await store.scanned({ signal: t.signal });
    const owned = await commitBytes(store, content(5000, 9));
    const [a, b] = [await demoted(store, 1), await demoted(store, 2)];
    await store.readPiece(a, 0);
    const c = await demoted(store, 3);
    assert.notEqual(store.info(owned), undefined);
    const there = [a, b, c].map((digest) => store.cached(digest) !== undefined);
    assert.deepEqual(there, [true, false, true]);
    assert.equal(fs.existsSync(cachePath(room, b)), false);
    assert.deepEqual(fs.readdirSync(room.content('blobs', 'sha256')), [hexOf(owned)]);
    assert.equal(room.register.value('store_evictions_total', { reason: 'budget' }), 1);
  });

  it('keeps a blob that an ingest has adopted under blobs/ until the ingest ends', async (t) => {
    const clock = new FakeClock();
    const room = await StoreRoom.make(t, { cache_max_bytes: 1500 }, { clock });
    await using store = await room.open();
    const a = await demoted(store, 1);
    await store.restore(a);
    await using ingest = await store.ingest('ref', { total_bytes: 1000 });
    await ingest.adopt(a);
    await clock.advance(2 * ARRIVAL_KEEP_MS);
    assert.deepEqual([...(await store.list())], []);
    assert.notEqual(store.info(a), undefined);
    await store.abort('ref');
    assert.deepEqual([...(await store.list())], []);
    assert.equal(store.info(a), undefined);
    assert.notEqual(store.cached(a), undefined);
  });

  it('gets a published blob at once when its ingest is aborted, and not within the call', async (t) => {
    const clock = new FakeClock();
    const room = await StoreRoom.make(t, {}, { clock });
    await using store = await room.open();
    const digest = await abandoned(store);
    assert.notEqual(store.info(digest), undefined);
    await store.settled();
    assert.equal(store.info(digest), undefined);
    assert.notEqual(store.cached(digest), undefined);
    assert.deepEqual(fs.readdirSync(room.content('blobs', 'sha256')), []);
    // It comes back verified, as from anywhere in the cache.
    assert.equal(await store.restore(digest), true);
  });

  it('never gets a blob that somebody takes up in the moment after the abort', async (t) => {
    const room = await StoreRoom.make(t);
    await using store = await room.open();
    const digest = digestOf(content(1000));
    await using staged = await store.stage(digest, 1000);
    await abandoned(store, () => writePieces(staged, content(1000)));
    await staged.publish();
    await store.settled();
    assert.notEqual(store.adopt(digest), undefined, 'peers brought it meanwhile');
    await store.delete(digest);

    await abandoned(store);
    assert.notEqual(store.adopt(digest), undefined, 'what containerd asks for is its own');
    await store.settled();
    assert.deepEqual(
      [...(await store.list())].map((info) => info.digest),
      [digest],
    );
    await store.delete(digest);

    await abandoned(store);
    await using other = await store.ingest('other', { total_bytes: 1000 });
    await other.adopt(digest);
    await store.settled();
    await other.commit({ size_bytes: 1000, expected: digest, labels: {} });
    assert.deepEqual(
      [...(await store.list())].map((info) => info.digest),
      [digest],
    );
    await store.delete(digest);
  });

  it('gets a published blob only when the last of its ingests is aborted', async (t) => {
    const room = await StoreRoom.make(t);
    await using store = await room.open();
    const digest = await abandoned(store, async () => {
      const other = await store.ingest('other', { total_bytes: 1000 });
      await other.adopt(digestOf(content(1000)));
      await other[Symbol.asyncDispose]();
    });
    await store.settled();
    assert.notEqual(store.info(digest), undefined);
    await store.abort('other');
    await store.settled();
    assert.notEqual(store.cached(digest), undefined);
  });

  it('that cannot be evicted fails nobody: the commit and the delete beside it succeed', async (t) => {
    const stuck = new Set<string>();
    const files: Files = {
      ...systemFiles,
      renameNow: (from, to) => {
        if (stuck.has(from)) throw Object.assign(new Error('EPERM: immutable'), { code: 'EPERM' });
        systemFiles.renameNow(from, to);
      },
    };
    const room = await StoreRoom.make(t, { cache_max_bytes: 1500 }, { files });
    await using store = await room.open();
    await store.scanned({ signal: t.signal });
    const a = await demoted(store, 1);
    stuck.add(cachePath(room, a));
    const b = await demoted(store, 2);
    const kept = await commitBytes(store, content(1000, 3));
    await store.settled();
    assert.notEqual(store.info(kept), undefined);
    assert.notEqual(store.cached(b), undefined);
    assert.equal(fs.existsSync(cachePath(room, a)), true);
    assert.ok(room.logger.lines.some((line) => line.message === 'blob cannot be removed'));
  });

  it("lies where containerd's own store does not look, and survives a kill", async (t) => {
    const room = await StoreRoom.make(t);
    const digest = await (async () => {
      await using store = await room.open();
      return await demoted(store, 1);
    })();
    assert.deepEqual(fs.readdirSync(room.content('blobs', 'sha256')), []);
    await using store = await room.open();
    assert.deepEqual([...(await store.list())], []);
    assert.equal(store.cached(digest)?.size_bytes, 1000);
    assert.equal(await store.restore(digest), true);
    assert.deepEqual(fs.readdirSync(room.content('blobs', 'sha256')), [hexOf(digest)]);
  });

  it('never gives back a blob that is not what it was', async (t) => {
    const room = await StoreRoom.make(t);
    await using store = await room.open();
    const digest = await demoted(store, 1);
    const path = cachePath(room, digest);
    fs.chmodSync(path, 0o600);
    fs.writeFileSync(path, content(1000, 2));
    assert.equal(await store.restore(digest), false);
    assert.deepEqual([store.info(digest), store.cached(digest)], [undefined, undefined]);
    assert.deepEqual(fs.readdirSync(room.content('blobs', 'sha256')), []);
    assert.deepEqual([...store.lost()], [], 'containerd does not reference it');
    assert.equal(fs.readdirSync(join(room.config.work_directory, 'quarantine')).length, 1);
    const again = await commitBytes(store, content(1000, 1));
    assert.equal(again, digest);
  });

  it('stays as it is while containerd does not use the store', async (t) => {
    const room = await StoreRoom.make(t);
    await using store = await room.open();
    const digest = await demoted(store, 1);
    store.setWired(false);
    await assert.rejects(store.restore(digest), (error) => hasCode(error, 'failed_precondition'));
    assert.deepEqual(fs.readdirSync(room.content('blobs', 'sha256')), []);
    store.setWired(true);
    assert.equal(await store.restore(digest), true);
  });

  it('takes over what an earlier version kept under blobs/, if nothing has happened since', async (t) => {
    for (const trusted of [true, false]) {
      const room = await StoreRoom.make(t);
      const digest = await (async () => {
        await using store = await room.open();
        return await commitBytes(store, content(1000, 1));
      })();
      const marks = join(room.config.state_directory, 'cache', 'sha256');
      fs.mkdirSync(marks, { recursive: true });
      fs.writeFileSync(join(marks, hexOf(digest)), '');
      if (trusted) fs.writeFileSync(join(room.config.state_directory, 'closed'), 'absent');
      await using store = await room.open();
      assert.equal(store.cached(digest) !== undefined, trusted);
      assert.equal([...(await store.list())].length, trusted ? 0 : 1);
      assert.deepEqual(fs.readdirSync(marks), []);
    }
  });

  it('gives a removed blob up only after the reads that are under way', async (t) => {
    const room = await StoreRoom.make(t, { cache_max_bytes: 0 });
    await using store = await room.open();
    const bytes = content(3 * WINDOW_BYTES);
    const digest = await commitBytes(store, bytes);
    const reader = await store.open(digest);
    const reading = reader.read(0, bytes.length);
    await store.delete(digest);
    assert.equal(Buffer.compare(await reading, bytes), 0);
    await assert.rejects(reader.read(0, 10), (error) => hasCode(error, 'not_found'));
    assert.equal(store.opened(digest), undefined);
  });
});

describe('reading', () => {
  it('serves a sequential reader mostly from the window, always with the right bytes', async (t) => {
    const room = await StoreRoom.make(t);
    await using store = await room.open();
    const bytes = content(3 * WINDOW_BYTES + 12_345);
    const digest = await commitBytes(store, bytes);
    const reader = await store.open(digest);
    const step = 32 * 1024;
    const parts: Uint8Array[] = [];
    let peeked = 0;
    for (let at = 0; at < bytes.length; at += step) {
      const window = reader.peek(at, step);
      if (window !== undefined) peeked += 1;
      parts.push(window ?? (await reader.read(at, step)));
    }
    // Every part was handed out before the later windows were filled: none may have changed since.
    assert.equal(Buffer.compare(Buffer.concat(parts), bytes), 0);
    assert.ok(peeked >= parts.length - 8, `${peeked} of ${parts.length} from the window`);
  });

  it('works with fewer open files than blobs being read at once', async (t) => {
    const room = await StoreRoom.make(t, { open_files_max: 2 });
    await using store = await room.open();
    const blobs: { digest: Digest; bytes: Uint8Array }[] = [];
    for (let seed = 0; seed < 8; seed++) {
      const bytes = content(200_000, seed);
      blobs.push({ digest: await commitBytes(store, bytes), bytes });
    }
    const readers = await Promise.all(blobs.map(({ digest }) => store.open(digest)));
    for (let at = 0; at < 200_000; at += 50_000) {
      const reads = readers.map((reader) => reader.read(at, 50_000));
      for (const [i, got] of (await Promise.all(reads)).entries()) {
        assert.equal(Buffer.compare(got, blobs[i]!.bytes.subarray(at, at + 50_000)), 0);
      }
    }
    // Files only: the directory is open now and then as well, while the names of the blobs committed above are synced.
    const files = room.content('blobs', 'sha256', '/');
    const fds = fs.readdirSync('/proc/self/fd').filter((fd) => {
      try {
        return fs.readlinkSync(`/proc/self/fd/${fd}`).startsWith(files);
      } catch {
        return false;
      }
    });
    assert.ok(fds.length <= 2, `${fds.length} open`);
  });

  it('leaves no file open when the store closes', async (t) => {
    const room = await StoreRoom.make(t);
    {
      await using store = await room.open();
      const digest = await commitBytes(store, content(1000));
      await store.open(digest);
      await store.stage(digestOf(Buffer.from('x')), 1);
    }
    const open = fs.readdirSync('/proc/self/fd').map((fd) => {
      try {
        return fs.readlinkSync(`/proc/self/fd/${fd}`);
      } catch {
        return '';
      }
    });
    assert.deepEqual(
      open.filter((path) => path.startsWith(room.content())),
      [],
    );
  });
});
