import assert from 'node:assert/strict';
import * as fs from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { hasCode } from '../../src/base/errors.ts';
import { type Digest, digestOf, hexOf } from '../../src/oci/digest.ts';
import { PIECE_BYTES } from '../../src/piece/layout.ts';
import { breathe, type Files, systemFiles } from '../../src/store/disk/files.ts';
import type { LocalStore } from '../../src/store/local-store.ts';
import { commitBytes } from '../contract/blob-store-suite.ts';
import { content, StoreRoom, whileRunning } from './store-room.ts';

const BLOBS = 20;
const digestAt = (n: number): Digest => digestOf(content(1000, n));
const ALL = Array.from({ length: BLOBS }, (_, n) => digestAt(n));

/** Puts blobs where a start finds them. */
function place(room: StoreRoom, where: 'blobs' | 'cache', seeds: Iterable<number>): void {
  for (const n of seeds) write(pathOf(room, where, digestAt(n)), content(1000, n));
}

function write(path: string, bytes: Uint8Array | string): void {
  fs.mkdirSync(join(path, '..'), { recursive: true });
  fs.writeFileSync(path, bytes);
}

function pathOf(room: StoreRoom, where: 'blobs' | 'cache', digest: Digest): string {
  const { content_directory, work_directory } = room.config;
  const root = where === 'blobs' ? content_directory : work_directory;
  return join(root, where, 'sha256', hexOf(digest));
}

function labelPath(room: StoreRoom, digest: Digest): string {
  return join(room.config.state_directory, 'labels', 'sha256', hexOf(digest));
}

/** A room with one file for each slice of the scan. */
async function slowRoom(
  t: Parameters<typeof StoreRoom.make>[0],
  config: Parameters<typeof StoreRoom.make>[1] = {},
  files: Files = systemFiles,
): Promise<StoreRoom> {
  return await StoreRoom.make(t, config, { files, scan_slice_files: 1 });
}

async function listed(store: LocalStore): Promise<Set<Digest>> {
  return new Set([...(await store.list())].map((info) => info.digest));
}

const without = (...gone: readonly Digest[]): Set<Digest> =>
  new Set(ALL.filter((digest) => !gone.includes(digest)));

describe('a store whose start has not looked at all files yet', () => {
  it('answers for each blob as if it had', async (t) => {
    const room = await slowRoom(t);
    place(room, 'blobs', ALL.keys());
    place(room, 'cache', [BLOBS]);
    await using store = await room.open();
    assert.equal(store.usage().owned_count, 0, 'it has not begun');
    assert.equal(store.info(digestAt(3))?.size_bytes, 1000);
    assert.equal(store.adopt(digestAt(4))?.size_bytes, 1000);
    assert.equal(digestOf(await (await store.open(digestAt(5))).read(0, 1000)), digestAt(5));
    assert.equal(digestOf(await store.readPiece(digestAt(6), 0)), digestAt(6));
    const labelled = await store.update(digestAt(7), { a: '1' }, 'merge');
    assert.deepEqual(labelled.labels, { a: '1' });
    assert.equal((await store.check(digestAt(8), { signal: t.signal })).state, 'right');
    assert.equal(store.cached(digestAt(BLOBS))?.size_bytes, 1000);
    assert.equal(store.info(digestAt(BLOBS)), undefined, 'containerd does not own it');
    assert.equal(store.info(digestAt(99)), undefined);
    assert.equal(await store.restore(digestAt(BLOBS)), true);
    assert.equal(store.usage().owned_count, 7);
    assert.deepEqual(await listed(store), new Set(ALL));
    assert.deepEqual(store.info(digestAt(7))?.labels, { a: '1' });
  });

  it('answers for others between two files', async (t) => {
    const room = await slowRoom(t);
    place(room, 'blobs', ALL.keys());
    await using store = await room.open();
    const seen: number[] = [];
    const scanned = store.scanned({ signal: t.signal });
    while (store.usage().owned_count < BLOBS) {
      seen.push(store.usage().owned_count);
      await breathe();
    }
    await scanned;
    assert.ok(new Set(seen).size > BLOBS / 2, `counts seen on the way: ${seen.join()}`);
  });

  it('lists nothing before it knows everything', async (t) => {
    const room = await slowRoom(t);
    place(room, 'blobs', ALL.keys());
    await using store = await room.open();
    assert.deepEqual(await listed(store), new Set(ALL));
  });

  it('tells peers of every blob once', async (t) => {
    const room = await slowRoom(t);
    place(room, 'blobs', ALL.keys());
    place(room, 'cache', [BLOBS]);
    await using store = await room.open();
    const told: Digest[] = [];
    store.onShared(({ kind, digest }) => {
      if (kind === 'added') told.push(digest);
    });
    store.info(digestAt(9));
    await store.scanned({ signal: t.signal });
    assert.deepEqual(told.toSorted(), [...ALL, digestAt(BLOBS)].sort());
    assert.deepEqual([...store.shared()].sort(), told.sort());
  });

  it('computes the piece lists of what it finds', async (t) => {
    const room = await slowRoom(t);
    const bytes = content(PIECE_BYTES + 1, 1);
    write(pathOf(room, 'blobs', digestOf(bytes)), bytes);
    await using store = await room.open();
    await whileRunning(store, () => store.listed());
    assert.deepEqual([...store.shared()], [digestOf(bytes)]);
  });

  it('goes on when the background work that began it is stopped, and ends when it is closed', async (t) => {
    const room = await slowRoom(t);
    place(room, 'blobs', ALL.keys());
    const store = await room.open();
    await whileRunning(store, breathe);
    assert.ok(store.usage().owned_count < BLOBS);
    assert.deepEqual(await listed(store), new Set(ALL));
    await store[Symbol.asyncDispose]();
    const next = await room.open();
    const list = assert.rejects(listed(next), (error) => hasCode(error, 'cancelled'));
    await next[Symbol.asyncDispose]();
    await list;
  });
});

describe('a file under blobs/ that cannot be looked at', () => {
  it('costs none of the others, is no blob, and is replaced by the next pull of it', async (t) => {
    const room = await slowRoom(t);
    place(room, 'blobs', [0, 1]);
    const path = pathOf(room, 'blobs', digestAt(2));
    fs.symlinkSync(path, path);
    await using store = await room.open();
    assert.equal(store.info(digestAt(2)), undefined);
    assert.deepEqual(await listed(store), new Set([digestAt(0), digestAt(1)]));
    await commitBytes(store, content(1000, 2));
    assert.deepEqual(await listed(store), new Set([0, 1, 2].map(digestAt)));
  });
});

describe('what changes while a start still looks at files', () => {
  it('stays deleted, and is in the cache once', async (t) => {
    const room = await slowRoom(t);
    place(room, 'blobs', ALL.keys());
    await using store = await room.open();
    for (const n of [0, 7, 19]) await store.delete(digestAt(n));
    const scanned = store.scanned({ signal: t.signal });
    await breathe();
    for (const n of [1, 8, 18]) await store.delete(digestAt(n));
    await scanned;
    const gone = [0, 1, 7, 8, 18, 19].map(digestAt);
    assert.deepEqual(await listed(store), without(...gone));
    for (const digest of gone) assert.equal(store.cached(digest)?.size_bytes, 1000);
    const { cache_count, cache_bytes } = store.usage();
    assert.deepEqual({ cache_count, cache_bytes }, { cache_count: 6, cache_bytes: 6000 });
  });

  it('stays out when it left and its file could not be removed', async (t) => {
    const files = {
      ...systemFiles,
      renameNow: () => {
        throw Object.assign(new Error('EPERM: immutable'), { code: 'EPERM' });
      },
    };
    const room = await slowRoom(t, { cache_max_bytes: 0 }, files);
    place(room, 'blobs', ALL.keys());
    await using store = await room.open();
    await store.delete(digestAt(5));
    assert.deepEqual(await listed(store), without(digestAt(5)));
    assert.equal(fs.existsSync(pathOf(room, 'blobs', digestAt(5))), true);
  });

  it('is not taken for containerd’s own while its name is being forced to the disk', async (t) => {
    const held = Promise.withResolvers<undefined>();
    const reached = Promise.withResolvers<undefined>();
    const files: Files = {
      ...systemFiles,
      sync: async (fd) => {
        if (fs.fstatSync(fd).isDirectory()) {
          reached.resolve(undefined);
          await held.promise;
        }
      },
    };
    const room = await slowRoom(t, {}, files);
    place(room, 'blobs', ALL.keys());
    await using store = await room.open();
    const bytes = content(1000, BLOBS);
    await using ingest = await store.ingest('layer', { total_bytes: 1000 });
    // Or a failure below would leave the ingest's end waiting.
    using release = new DisposableStack();
    release.defer(() => held.resolve(undefined));
    const written = ingest.write(bytes);
    await reached.promise;
    assert.equal(fs.existsSync(pathOf(room, 'blobs', digestAt(BLOBS))), true);
    assert.equal(store.info(digestAt(BLOBS)), undefined);
    assert.deepEqual(await listed(store), new Set(ALL));
    release.dispose();
    await written;
    assert.deepEqual(await listed(store), new Set(ALL), 'published is not owned');
    await ingest.commit({ size_bytes: 1000, expected: digestAt(BLOBS), labels: {} });
    assert.equal((await listed(store)).has(digestAt(BLOBS)), true);
  });

  it('keeps the labels it is given, and the labels of blobs that are gone are removed in the end', async (t) => {
    const room = await slowRoom(t);
    place(room, 'blobs', [0, 1, 2]);
    place(room, 'cache', [3]);
    for (const n of [0, 1, 3, 4, 5]) write(labelPath(room, digestAt(n)), `{"from":"${n}"}`);
    await using store = await room.open();
    assert.deepEqual(store.info(digestAt(0))?.labels, { from: '0' });
    await store.update(digestAt(1), { from: 'here' }, 'replace');
    await commitBytes(store, content(1000, 5), { from: 'commit' });
    await store.scanned({ signal: t.signal });
    const labels = [0, 1, 2, 5].map((n) => store.info(digestAt(n))?.labels);
    assert.deepEqual(labels, [{ from: '0' }, { from: 'here' }, {}, { from: 'commit' }]);
    const kept = [0, 1, 3, 4, 5].filter((n) => fs.existsSync(labelPath(room, digestAt(n))));
    assert.deepEqual(kept, [0, 1, 5]);
  });

  it('loses no cache blob before all of them are known, and then the oldest', async (t) => {
    const room = await slowRoom(t, { cache_max_bytes: 2500 });
    for (const n of [4, 3, 2, 1, 0]) {
      place(room, 'cache', [n]);
      // Its ctime orders them; the file system's clock has a grain of some milliseconds.
      await waitForLaterFile(room, pathOf(room, 'cache', digestAt(n)));
    }
    place(room, 'blobs', [9]);
    await using store = await room.open();
    for (const n of [4, 3]) assert.notEqual(store.cached(digestAt(n)), undefined);
    await store.delete(digestAt(9));
    const there = (): number[] =>
      [0, 1, 2, 3, 4, 9].filter((n) => fs.existsSync(pathOf(room, 'cache', digestAt(n))));
    await store.settled();
    assert.deepEqual(there(), [0, 1, 2, 3, 4, 9]);
    await whileRunning(store, async () => {
      await store.scanned({ signal: t.signal });
      await breathe();
      await store.settled();
    });
    assert.deepEqual(there(), [3, 9], 'what was asked for or came meanwhile is younger');
    assert.equal(store.usage().cache_bytes, 2000);
  });

  it('has a copy in the cache no longer when it lies under blobs/ too', async (t) => {
    const room = await slowRoom(t);
    place(room, 'blobs', [0, 1]);
    place(room, 'cache', [0, 1]);
    await using store = await room.open();
    assert.equal(store.cached(digestAt(0)), undefined);
    assert.equal(fs.existsSync(pathOf(room, 'cache', digestAt(0))), false, 'at once');
    await store.scanned({ signal: t.signal });
    assert.deepEqual(await listed(store), new Set([digestAt(0), digestAt(1)]));
    assert.equal(store.usage().cache_count, 0);
    for (const n of [0, 1]) assert.equal(fs.existsSync(pathOf(room, 'cache', digestAt(n))), false);
  });

  it('has no copy left in the cache when it was deleted before that was looked at', async (t) => {
    const room = await slowRoom(t, { cache_max_bytes: 0 });
    place(room, 'blobs', ALL.keys());
    place(room, 'cache', [0, 1]);
    await using store = await room.open();
    const scanned = store.scanned({ signal: t.signal });
    while (store.usage().owned_count < BLOBS) await breathe();
    for (const n of [0, 1]) await store.delete(digestAt(n));
    await scanned;
    await store.settled();
    for (const n of [0, 1]) {
      assert.equal(fs.existsSync(pathOf(room, 'cache', digestAt(n))), false);
      assert.equal(store.cached(digestAt(n)), undefined);
    }
  });

  it('is missed no longer when containerd’s own store has brought it back', async (t) => {
    const room = await slowRoom(t);
    place(room, 'blobs', [1]);
    for (const n of [0, 1]) {
      write(join(room.config.state_directory, 'lost', 'sha256', hexOf(digestAt(n))), '1000');
    }
    await using store = await room.open();
    assert.deepEqual([...store.lost()], [{ digest: digestAt(0), size_bytes: 1000 }]);
  });
});

/** Returns when a file that is written now is younger than `path`. */
async function waitForLaterFile(room: StoreRoom, path: string): Promise<void> {
  const probe = join(room.config.content_directory, 'probe');
  const { ctimeMs } = fs.statSync(path);
  do {
    await breathe();
    fs.writeFileSync(probe, '');
    fs.utimesSync(probe, 1, 1);
  } while (fs.statSync(probe).ctimeMs <= ctimeMs);
}
