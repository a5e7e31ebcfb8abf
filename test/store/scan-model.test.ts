import assert from 'node:assert/strict';
import * as fs from 'node:fs';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import fc from 'fast-check';
import { DaemonError } from '../../src/base/errors.ts';
import { type Digest, digestOf, hexOf } from '../../src/oci/digest.ts';
import { breathe } from '../../src/store/disk/files.ts';
import type { LocalStore } from '../../src/store/local-store.ts';
import { commitBytes } from '../contract/blob-store-suite.ts';
import { FakeClock } from '../fakes/fake-clock.ts';
import { content, StoreRoom, writePieces } from './store-room.ts';

const SIZE = 100;
const BLOBS = 8;
const DIGESTS: readonly Digest[] = Array.from({ length: BLOBS }, (_, n) =>
  digestOf(content(SIZE, n)),
);

/** What lies there at start under each digest. */
const place = fc.record({
  where: fc.constantFrom('nowhere', 'blobs', 'cache', 'both'),
  wrong: fc.constantFrom(false, false, false, true),
  labelled: fc.boolean(),
});
const CALLS = [
  ...['info', 'adopt', 'cached', 'read', 'readPiece', 'check', 'restore', 'update', 'delete'],
  ...['commit', 'stage', 'write', 'abort', 'list', 'restart'],
] as const;
const operation = fc.record({
  call: fc.constantFrom(...CALLS),
  blob: fc.nat(BLOBS - 1),
  /** Another blob that is being committed at the same time. */
  beside: fc.option(fc.nat(BLOBS - 1), { nil: undefined }),
  /** Slices of the scan that go by before. */
  slices: fc.nat(4),
});
type Place = { where: string; wrong: boolean; labelled: boolean };
type Operation = {
  call: (typeof CALLS)[number];
  blob: number;
  beside: number | undefined;
  slices: number;
};

/** One store; `awaits_scan` says whether every start looks at all files before anything is asked. */
class Side {
  readonly #room: StoreRoom;
  readonly #awaits_scan: boolean;
  readonly #told = new Set<Digest>();
  readonly #no_news: string[] = [];
  store: LocalStore;

  private constructor(room: StoreRoom, awaits_scan: boolean, store: LocalStore) {
    this.#room = room;
    this.#awaits_scan = awaits_scan;
    this.store = store;
  }

  static async open(
    t: TestContext,
    places: readonly Place[],
    options: { awaits_scan: boolean; cache_max_bytes: number },
  ): Promise<Side> {
    const modules = { clock: new FakeClock(), scan_slice_files: 1 };
    const { cache_max_bytes, awaits_scan } = options;
    const room = await StoreRoom.make(t, { cache_max_bytes }, modules);
    for (const [n, each] of places.entries()) lay(room, n, each);
    const side = new Side(room, awaits_scan, await room.open());
    await side.#begin();
    return side;
  }

  /** What the call answers. */
  async run({ call, blob, beside, slices }: Operation): Promise<unknown> {
    for (let n = 0; n < slices; n++) await breathe();
    const other = beside === undefined || beside === blob ? undefined : this.#commit(beside);
    const answer = call === 'restart' ? undefined : await told(() => this.#call(call, blob));
    const otherAnswer = await other;
    if (call === 'restart') await this.#restart();
    return { answer, otherAnswer };
  }

  /** All that can be known of it, and what lies on the disk. */
  async end(): Promise<unknown> {
    const list = await this.#call('list', 0);
    await this.store.settled();
    const each = DIGESTS.map((digest) => [
      facts(this.store.info(digest)),
      facts(this.store.cached(digest)),
    ]);
    const { owned_count, owned_bytes, cache_count, cache_bytes } = this.store.usage();
    const shared = [...this.store.shared()].sort();
    assert.deepEqual([...this.#told].sort(), shared, 'peers were told of what is shared');
    assert.deepEqual(this.#no_news, []);
    const { content_directory, work_directory, state_directory } = this.#room.config;
    const files = [
      join(content_directory, 'blobs/sha256'),
      join(work_directory, 'cache/sha256'),
      join(state_directory, 'labels/sha256'),
    ].map((path) => (fs.existsSync(path) ? fs.readdirSync(path).sort() : []));
    await this.store[Symbol.asyncDispose]();
    return { list, each, owned_count, owned_bytes, cache_count, cache_bytes, shared, files };
  }

  async #restart(): Promise<void> {
    await this.store[Symbol.asyncDispose]();
    this.store = await this.#room.open();
    await this.#begin();
  }

  async #begin(): Promise<void> {
    this.#told.clear();
    for (const digest of this.store.shared()) this.#told.add(digest);
    this.store.onShared(({ kind, digest }) => {
      // A listener that throws is only logged.
      if (this.#told.has(digest) !== (kind === 'removed')) this.#no_news.push(`${kind} ${digest}`);
      if (kind === 'removed') this.#told.delete(digest);
      else this.#told.add(digest);
    });
    const scanned = this.store.scanned({ signal: new AbortController().signal });
    scanned.catch(() => undefined);
    if (this.#awaits_scan) await scanned;
  }

  async #call(call: string, blob: number): Promise<unknown> {
    const { store } = this;
    const digest = DIGESTS[blob]!;
    const bytes = content(SIZE, blob);
    const ref = `ref-${blob}`;
    if (call === 'info') return facts(store.info(digest));
    if (call === 'adopt') return facts(store.adopt(digest));
    if (call === 'cached') return facts(store.cached(digest));
    if (call === 'read') return digestOf(await (await store.open(digest)).read(0, SIZE));
    if (call === 'readPiece') return digestOf(await store.readPiece(digest, 0));
    if (call === 'check') return await store.check(digest, { signal: AbortSignal.timeout(5000) });
    if (call === 'restore') return await store.restore(digest);
    if (call === 'update') return facts(await store.update(digest, { to: `${blob}` }, 'merge'));
    if (call === 'delete') {
      await store.delete(digest);
      return 'deleted';
    }
    if (call === 'commit') return await this.#commit(blob);
    if (call === 'abort') {
      await store.abort(ref);
      return 'aborted';
    }
    if (call === 'list') return [...(await store.list())].map(facts).sort();
    if (call === 'write') {
      await using ingest = await store.ingest(ref, { total_bytes: SIZE, named: digest });
      await ingest.ready(AbortSignal.timeout(5000));
      if (ingest.status().offset_bytes === 0) await ingest.write(bytes);
      return ingest.status().offset_bytes;
    }
    await using staged = await store.stage(digest, SIZE);
    await writePieces(staged, bytes);
    return facts(await staged.publish());
  }

  async #commit(blob: number): Promise<unknown> {
    return await told(() => commitBytes(this.store, content(SIZE, blob), { by: `${blob}` }));
  }
}

function lay(room: StoreRoom, n: number, { where, wrong, labelled }: Place): void {
  const { content_directory, work_directory, state_directory } = room.config;
  const digest = DIGESTS[n]!;
  const write = (root: string, folder: string, bytes: Uint8Array): void => {
    const path = join(root, folder, 'sha256', hexOf(digest));
    fs.mkdirSync(join(path, '..'), { recursive: true });
    fs.writeFileSync(path, bytes);
    fs.utimesSync(path, 1000 + n, 1000 + n);
  };
  const bytes = content(wrong ? SIZE + 1 : SIZE, wrong ? n + BLOBS : n);
  if (where === 'blobs' || where === 'both') write(content_directory, 'blobs', bytes);
  if (where === 'cache' || where === 'both') write(work_directory, 'cache', bytes);
  if (labelled) write(state_directory, 'labels', Buffer.from(`{"at":"${n}"}`));
}

async function told(call: () => Promise<unknown>): Promise<unknown> {
  try {
    return await call();
  } catch (error) {
    if (error instanceof DaemonError) return error.code;
    throw error;
  }
}

function facts(info: ReturnType<LocalStore['info']>): string | undefined {
  if (info === undefined) return undefined;
  const { digest, size_bytes, created_ns, labels } = info;
  return JSON.stringify([digest, size_bytes, String(created_ns), labels]);
}

describe('a store that is asked while it still looks at its files', () => {
  it('answers every call as one that has looked at all of them, and ends the same', async (t) => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(place, { minLength: BLOBS, maxLength: BLOBS }),
        fc.array(operation, { maxLength: 12 }),
        fc.constantFrom(0, 2 ** 30),
        async (places, operations, cache_max_bytes) => {
          const before = await Side.open(t, places, { awaits_scan: true, cache_max_bytes });
          const during = await Side.open(t, places, { awaits_scan: false, cache_max_bytes });
          for (const each of operations) {
            assert.deepEqual(await during.run(each), await before.run(each), each.call);
          }
          assert.deepEqual(await during.end(), await before.end());
        },
      ),
      { numRuns: 60 },
    );
  });
});
