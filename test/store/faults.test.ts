// Every file operation of the way a blob is written fails in turn. Whatever comes of it: never a wrong blob, never a ref that cannot be
// pulled again, nothing left open, and the store goes on.
import assert from 'node:assert/strict';
import * as fs from 'node:fs';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { DaemonError, hasCode } from '../../src/base/errors.ts';
import { type Digest, digestOf, hexOf } from '../../src/oci/digest.ts';
import { PIECE_BYTES } from '../../src/piece/layout.ts';
import { LocalStore } from '../../src/store/local-store.ts';
import { commitBytes } from '../contract/blob-store-suite.ts';
import { FaultyFiles, NEEDS_ROOM } from './faulty-files.ts';
import { content, StoreRoom, writePieces } from './store-room.ts';

const bytes = content(2 * PIECE_BYTES + 1000);
const digest = digestOf(bytes);
const small = Buffer.from('a blob of a few bytes');
const want = { size_bytes: bytes.length, expected: digest, labels: {} };
const ref = `k8s.io/1/layer-${digest}`;
const opening = { total_bytes: bytes.length, named: digest };

type Scenario = {
  readonly id: string;
  /** What is there before anything fails. */
  readonly arrange?: (store: LocalStore) => Promise<void>;
  /** A pull, as the doors do it. */
  readonly pull: (store: LocalStore, signal: AbortSignal) => Promise<void>;
  readonly digest: Digest;
};

async function written(
  store: LocalStore,
  signal: AbortSignal,
  told: { total_bytes: number; named?: Digest } = opening,
): Promise<void> {
  await using ingest = await store.ingest(ref, told);
  await ingest.ready(signal);
  while (ingest.status().offset_bytes < bytes.length) {
    const at = ingest.status().offset_bytes;
    await ingest.write(bytes.subarray(at, at + PIECE_BYTES));
  }
  await ingest.commit(want);
}

async function fromPeers(store: LocalStore, give: 'whole' | 'move' | 'copy', signal: AbortSignal) {
  await using ingest = await store.ingest(ref, opening);
  try {
    await using staged = await store.stage(digest, bytes.length);
    if (give === 'whole') {
      await writePieces(staged, bytes, [1, 0, 2]);
      await staged.publish();
      await ingest.adopt(digest);
    } else {
      await writePieces(staged, bytes, [0, 2]);
      await ingest.takePrefix(staged, { move: give === 'move' });
    }
  } catch (error) {
    // As the door does it: whatever goes wrong here, containerd continues from the ingest's offset.
    assert.ok(error instanceof DaemonError || 'code' in (error as Error), String(error));
  }
  await ingest.ready(signal);
  if (ingest.status().offset_bytes < bytes.length) {
    await ingest.write(bytes.subarray(ingest.status().offset_bytes));
  }
  await ingest.commit(want);
}

const scenarios: readonly Scenario[] = [
  { id: 'written by containerd', pull: written, digest },
  {
    id: 'resumed behind bytes of an earlier writer',
    arrange: async (store) => {
      await using ingest = await store.ingest(ref, opening);
      await ingest.write(bytes.subarray(0, 5000));
    },
    pull: written,
    digest,
  },
  { id: 'whole from peers', pull: (store, signal) => fromPeers(store, 'whole', signal), digest },
  {
    id: 'begun by peers, for one puller',
    pull: (store, signal) => fromPeers(store, 'move', signal),
    digest,
  },
  {
    id: 'begun by peers, for several',
    pull: (store, signal) => fromPeers(store, 'copy', signal),
    digest,
  },
  {
    id: 'brought back from the cache',
    arrange: async (store) => {
      await commitBytes(store, small);
      await store.delete(digestOf(small));
    },
    pull: async (store) => {
      const of = digestOf(small);
      if (!(await store.restore(of)) || store.adopt(of) === undefined) {
        await commitBytes(store, small);
      }
    },
    digest: digestOf(small),
  },
  {
    id: 'of a writer that names a digest and no total',
    pull: async (store) => {
      const named = digestOf(small);
      await using ingest = await store.ingest('named', { total_bytes: 0, named });
      if (ingest.status().offset_bytes === 0) await ingest.write(small);
      await ingest.commit({ size_bytes: 0, expected: named, labels: {} });
    },
    digest: digestOf(small),
  },
  {
    id: 'of a writer that names nothing, forced to the disk while it comes',
    pull: (store, signal) => written(store, signal, { total_bytes: 0 }),
    digest,
  },
  {
    id: 'of a writer that names neither total nor digest',
    pull: async (store) => {
      await using ingest = await store.ingest('import', { total_bytes: 0 });
      await ingest.truncate();
      await ingest.write(small);
      await ingest.commit({ size_bytes: 0, expected: digestOf(small), labels: {} });
    },
    digest: digestOf(small),
  },
];

/** Files of the test's directories that this process has open. */
function openFiles(room: StoreRoom): string[] {
  return fs.readdirSync('/proc/self/fd').flatMap((fd) => {
    try {
      const path = fs.readlinkSync(`/proc/self/fd/${fd}`);
      return path.startsWith(room.content()) ? [path] : [];
    } catch {
      return [];
    }
  });
}

/** What lies under `blobs/` is what its name says, and so is everything the store shows. */
async function assertHonest(room: StoreRoom, store: LocalStore): Promise<void> {
  const directory = room.content('blobs', 'sha256');
  for (const hex of fs.existsSync(directory) ? fs.readdirSync(directory) : []) {
    const path = join(directory, hex);
    assert.equal(digestOf(fs.readFileSync(path)), `sha256:${hex}`, 'a wrong file under blobs/');
  }
  for (const { digest: listed, size_bytes } of await store.list()) {
    const found = await (await store.open(listed)).read(0, size_bytes);
    assert.equal(digestOf(found), listed, 'a wrong blob is listed');
  }
}

/** Resolves to whether the pull said that it succeeded. */
async function tried(pull: Promise<void>): Promise<boolean> {
  try {
    await pull;
    return true;
  } catch (error) {
    if (hasCode(error, 'already_exists')) return true;
    assert.ok(
      error instanceof Error && 'code' in error,
      `not a foreseen failure: ${String(error)}`,
    );
    return false;
  }
}

async function once(
  t: TestContext,
  scenario: Scenario,
  fault: { at: number; errno: string; lasting: boolean },
): Promise<readonly string[]> {
  const faulty = new FaultyFiles();
  const room = await StoreRoom.make(t, {}, { files: faulty.files });
  let operations: readonly string[];
  {
    await using store = await room.open();
    await scenario.arrange?.(store);
    await store.settled();
    faulty.arm(fault.at, fault.errno, fault.lasting);
    const done = await tried(scenario.pull(store, t.signal));
    await store.settled();
    operations = [...faulty.done];
    faulty.disarm();
    if (done) {
      const found = await (await store.open(scenario.digest)).read(0, bytes.length);
      assert.equal(digestOf(found), scenario.digest, 'committed, and not what was committed');
    }
    await assertHonest(room, store);
    // The next pull heals it, in the same process.
    assert.ok(await tried(scenario.pull(store, t.signal)), 'the ref is stuck');
    assert.ok([...(await store.list())].some((info) => info.digest === scenario.digest));
    await assertHonest(room, store);
  }
  assert.deepEqual(openFiles(room), []);
  await using store = await room.open();
  await assertHonest(room, store);
  assert.ok(fs.existsSync(room.content('blobs', 'sha256', hexOf(scenario.digest))));
  return operations;
}

/** A full disk fails what needs room, from then on. */
function roomless(operation: string): string[] {
  return NEEDS_ROOM.has(operation) ? ['ENOSPC'] : [];
}

describe('a file operation that fails', () => {
  for (const scenario of scenarios) {
    it(`costs at most a retry: a blob ${scenario.id}`, async (t) => {
      const names = await once(t, scenario, { at: Infinity, errno: 'EIO', lasting: false });
      assert.ok(names.length > 3, `${names.length} operations seen`);
      for (const [index, name] of names.entries()) {
        const errors = ['EIO', ...(name === 'open' ? ['EMFILE'] : []), ...roomless(name)];
        for (const errno of errors) {
          const fault = { at: index + 1, errno, lasting: errno === 'ENOSPC' };
          await once(t, scenario, fault).catch((error: unknown) => {
            const text = `${name}, operation ${index + 1} of ${names.length}, failed with ${errno}`;
            throw new Error(text, { cause: error });
          });
        }
      }
    });
  }
});

describe('a file that is not the one that was verified', () => {
  it('is never published: its name was given to another file while the writer had it open', async (t) => {
    const room = await StoreRoom.make(t);
    await using store = await room.open();
    await using ingest = await store.ingest(ref, opening);
    await ingest.write(bytes.subarray(0, PIECE_BYTES));
    const [directory] = fs.readdirSync(room.content('ingest'));
    const data = room.content('ingest', directory!, 'data');
    fs.renameSync(data, `${data}.aside`);
    fs.writeFileSync(data, bytes.subarray(0, 5000));
    await assert.rejects(ingest.write(bytes.subarray(PIECE_BYTES)), (error) =>
      hasCode(error, 'data_loss'),
    );
    await assertHonest(room, store);
    await ingest[Symbol.asyncDispose]();
    assert.ok(await tried(written(store, t.signal)));
    await assertHonest(room, store);
  });

  it('is never published: the ref was aborted and opened anew while its bytes were forced to the disk', async (t) => {
    const faulty = new FaultyFiles();
    const sync = Promise.withResolvers<undefined>();
    const forced = Promise.withResolvers<undefined>();
    const files = {
      ...faulty.files,
      sync: async (fd: number): Promise<void> => {
        sync.resolve(undefined);
        await forced.promise;
        await faulty.files.sync(fd);
      },
    };
    const room = await StoreRoom.make(t, {}, { files });
    await using store = await room.open();
    await using first = await store.ingest(ref, opening);
    const writing = first.write(bytes);
    await sync.promise;
    await store.abort(ref);
    await using second = await store.ingest(ref, { total_bytes: 11 });
    await second.ready(t.signal);
    await second.write(bytes.subarray(0, 5));
    forced.resolve(undefined);
    await assert.rejects(writing, (error) => hasCode(error, 'not_found'));
    await assertHonest(room, store);
    assert.equal(second.status().offset_bytes, 5);
  });
});
