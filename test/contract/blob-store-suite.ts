import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { describe, it, type TestContext } from 'node:test';
import { hasCode, type ErrorCode } from '../../src/base/errors.ts';
import { type Digest, digestOf, EMPTY_SHA256 } from '../../src/oci/digest.ts';
import { PIECE_BYTES } from '../../src/piece/layout.ts';
import { pieceDigest } from '../../src/piece/piece-list.ts';
import type { BlobStore } from '../../src/store/blob-store.ts';
import { content, pieceOf, writePieces } from '../store/store-room.ts';

const fails = (...codes: ErrorCode[]) => ({
  test: (error: unknown): boolean => hasCode(error, ...codes),
});
const rejects = (work: Promise<unknown>, code: ErrorCode): Promise<void> =>
  assert.rejects(work, (error) => fails(code).test(error));

const hello = Buffer.from('hello, containerd');
const HELLO = digestOf(hello);

/** Commits bytes as containerd would. */
export async function commitBytes(
  store: BlobStore,
  bytes: Uint8Array,
  labels: Readonly<Record<string, string>> = {},
): Promise<Digest> {
  const digest = digestOf(bytes);
  await using ingest = await store.ingest(`ns/1/layer-${digest}`, { total_bytes: bytes.length });
  if (bytes.length > 0) await ingest.write(bytes);
  await ingest.commit({ size_bytes: bytes.length, expected: digest, labels });
  return digest;
}

/** What every BlobStore promises. `open` gives a fresh, empty store with room for a cache; the suite closes it. */
export function blobStoreSuite(
  name: string,
  open: (t: TestContext) => Promise<BlobStore & AsyncDisposable>,
): void {
  describe(`${name}: ingests`, () => {
    ingestCases(open);
    commitCases(open);
  });
  describe(`${name}: blobs`, () => blobCases(open));
  describe(`${name}: staging`, () => stagingCases(open));
  describe(`${name}: sharing`, () => sharingCases(open));
}

type Open = (t: TestContext) => Promise<BlobStore & AsyncDisposable>;

function ingestCases(open: Open): void {
  it('shows offset, total and running digest as bytes come, the empty digest at 0', async (t) => {
    await using store = await open(t);
    await using ingest = await store.ingest('r', { total_bytes: hello.length, expected: HELLO });
    assert.equal(ingest.digest(), EMPTY_SHA256);
    await ingest.write(hello.subarray(0, 5));
    assert.equal(ingest.digest(), digestOf(hello.subarray(0, 5)));
    const { ref, offset_bytes, total_bytes, expected } = ingest.status();
    assert.deepEqual([ref, offset_bytes, total_bytes, expected], ['r', 5, hello.length, HELLO]);
    assert.deepEqual(store.status('r'), ingest.status());
    assert.deepEqual([...store.statuses()], [ingest.status()]);
  });

  it('lets one writer at a time into a ref and resumes where the last one left', async (t) => {
    await using store = await open(t);
    const first = await store.ingest('r', { total_bytes: 0 });
    await rejects(store.ingest('r', { total_bytes: 0 }), 'unavailable');
    await first.write(hello.subarray(0, 5));
    await first[Symbol.asyncDispose]();
    await using second = await store.ingest('r', { total_bytes: hello.length });
    await second.ready(t.signal);
    assert.equal(second.status().offset_bytes, 5);
    await second.write(hello.subarray(5));
    assert.equal(second.digest(), HELLO);
    await first[Symbol.asyncDispose]();
    await rejects(store.ingest('r', { total_bytes: 0 }), 'unavailable');
  });

  it('starts again at 0 when a resumed writer names another total', async (t) => {
    await using store = await open(t);
    {
      await using first = await store.ingest('r', { total_bytes: 17 });
      await first.write(hello.subarray(0, 5));
    }
    await using second = await store.ingest('r', { total_bytes: 18 });
    assert.deepEqual(
      [second.status().offset_bytes, second.status().total_bytes, second.digest()],
      [0, 18, EMPTY_SHA256],
    );
  });

  it('goes back to 0 by truncate', async (t) => {
    await using store = await open(t);
    await using ingest = await store.ingest('r', { total_bytes: 0 });
    await ingest.write(Buffer.from('wrong'));
    await ingest.truncate();
    assert.equal(ingest.digest(), EMPTY_SHA256);
    await ingest.write(hello);
    assert.equal(ingest.digest(), HELLO);
  });

  it('forgets an aborted ref, fails its writer, and lets a new one begin', async (t) => {
    await using store = await open(t);
    await store.abort('never seen');
    await using old = await store.ingest('r', { total_bytes: 0 });
    await old.write(hello);
    await store.abort('r');
    assert.equal(store.status('r'), undefined);
    await rejects(old.write(hello), 'not_found');
    await using fresh = await store.ingest('r', { total_bytes: 0 });
    assert.equal(fresh.status().offset_bytes, 0);
    await old[Symbol.asyncDispose]();
    await rejects(store.ingest('r', { total_bytes: 0 }), 'unavailable');
  });
}

function commitCases(open: Open): void {
  const want = { size_bytes: hello.length, expected: HELLO, labels: {} };

  it('commits into an owned, listed, readable blob and ends the ingest', async (t) => {
    await using store = await open(t);
    await commitBytes(store, hello, { k: 'v' });
    const info = store.info(HELLO);
    assert.deepEqual([info?.size_bytes, info?.labels], [hello.length, { k: 'v' }]);
    assert.deepEqual([...(await store.list())], [info]);
    assert.deepEqual([...store.statuses()], []);
    const bytes = await (await store.open(HELLO)).read(0, 100);
    assert.deepEqual(Buffer.from(bytes), hello);
  });

  it('commits an empty blob, and one whose size and digest nobody said', async (t) => {
    await using store = await open(t);
    assert.equal(await commitBytes(store, new Uint8Array(0)), EMPTY_SHA256);
    await using ingest = await store.ingest('r', { total_bytes: 0 });
    await ingest.write(hello);
    const info = await ingest.commit({ size_bytes: 0, expected: '', labels: {} });
    assert.equal(info.digest, HELLO);
  });

  it('commits under another algorithm when that is expected', async (t) => {
    await using store = await open(t);
    const digest = `sha512:${createHash('sha512').update(hello).digest('hex')}` as Digest;
    await using ingest = await store.ingest('r', { total_bytes: 0 });
    await ingest.write(hello);
    const info = await ingest.commit({ ...want, expected: digest });
    assert.deepEqual([info.digest, info.size_bytes], [digest, hello.length]);
  });

  it('commits under another algorithm when nobody had named it before, whatever the total', async (t) => {
    await using store = await open(t);
    const digest = `sha512:${createHash('sha512').update(hello).digest('hex')}` as Digest;
    await using named = await store.ingest('a', { total_bytes: hello.length, named: digest });
    await named.write(hello);
    assert.equal((await named.commit({ ...want, expected: digest })).digest, digest);
    await store.delete(digest);
    await using ingest = await store.ingest('r', { total_bytes: hello.length });
    await ingest.write(hello);
    assert.equal((await ingest.commit({ ...want, expected: digest })).digest, digest);
    assert.deepEqual(
      [...(await store.list())].map((info) => info.digest),
      [digest],
    );
    const bytes = await (await store.open(digest)).read(0, 100);
    assert.deepEqual(Buffer.from(bytes), hello);
  });

  it('keeps bytes of a wrong size, and wrong bytes of an unknown total', async (t) => {
    await using store = await open(t);
    await using ingest = await store.ingest('r', { total_bytes: 0 });
    await ingest.write(hello);
    await rejects(ingest.commit({ ...want, size_bytes: 3 }), 'failed_precondition');
    const wrong = { ...want, expected: digestOf(Buffer.from('other')) };
    await rejects(ingest.commit(wrong), 'failed_precondition');
    assert.equal(ingest.status().offset_bytes, hello.length);
    assert.equal((await ingest.commit(want)).digest, HELLO);
  });

  it('drops wrong bytes of a known total, so that a retry starts clean', async (t) => {
    await using store = await open(t);
    await using ingest = await store.ingest('r', { total_bytes: hello.length });
    await ingest.write(Buffer.alloc(hello.length));
    await rejects(ingest.commit(want), 'failed_precondition');
    assert.equal(ingest.status().offset_bytes, 0);
    await ingest.write(hello);
    assert.equal((await ingest.commit(want)).digest, HELLO);
  });

  it('keeps wrong bytes under a ref that names a digest until the commit refuses them, however often it is asked', async (t) => {
    await using store = await open(t);
    const opening = { total_bytes: hello.length, named: HELLO };
    await using ingest = await store.ingest('r', opening);
    await ingest.ready(t.signal);
    await ingest.write(Buffer.alloc(hello.length));
    await ingest.ready(t.signal);
    await ingest.ready(t.signal);
    assert.equal(ingest.status().offset_bytes, hello.length);
    await rejects(ingest.commit(want), 'failed_precondition');
    assert.equal(ingest.status().offset_bytes, 0);
    assert.equal(store.info(HELLO), undefined);
  });

  it('answers already_exists for an owned blob and removes the ingest', async (t) => {
    await using store = await open(t);
    await commitBytes(store, hello);
    await using ingest = await store.ingest('r', { total_bytes: 0 });
    await ingest.write(hello);
    await rejects(ingest.commit(want), 'already_exists');
    assert.equal(store.status('r'), undefined);
  });

  it('makes a cache blob owned by a second commit', async (t) => {
    await using store = await open(t);
    await commitBytes(store, hello);
    await store.delete(HELLO);
    await commitBytes(store, hello);
    assert.equal([...(await store.list())].length, 1);
  });

  it('adopts a cache blob that was brought back into an ingest and commits it as owned', async (t) => {
    await using store = await open(t);
    await commitBytes(store, hello);
    await store.delete(HELLO);
    assert.equal(await store.restore(HELLO), true);
    await using ingest = await store.ingest('r', { total_bytes: hello.length });
    await ingest.write(hello.subarray(0, 3));
    await ingest.adopt(HELLO);
    assert.equal(ingest.status().offset_bytes, hello.length);
    assert.equal(ingest.digest(), HELLO);
    assert.deepEqual([...(await store.list())], []);
    assert.equal((await ingest.commit(want)).digest, HELLO);
    assert.equal([...(await store.list())].length, 1);
    assert.equal(store.status('r'), undefined);
    await using again = await store.ingest('r', { total_bytes: hello.length });
    await again.adopt(HELLO);
    await rejects(again.commit(want), 'already_exists');
    await using absent = await store.ingest('x', { total_bytes: 0 });
    await rejects(absent.adopt(digestOf(Buffer.from('absent'))), 'not_found');
  });
}

function blobCases(open: Open): void {
  it('updates labels by replacing, by merging, and removes by empty values', async (t) => {
    await using store = await open(t);
    await commitBytes(store, hello, { a: '1', b: '2' });
    assert.deepEqual((await store.update(HELLO, { b: '', c: '3' }, 'merge')).labels, {
      a: '1',
      c: '3',
    });
    assert.deepEqual((await store.update(HELLO, { d: '4' }, 'replace')).labels, { d: '4' });
    await rejects(store.update(HELLO, { d: 'x'.repeat(4096) }, 'merge'), 'invalid_argument');
    await rejects(store.update(EMPTY_SHA256, {}, 'merge'), 'not_found');
  });

  it('demotes a deleted blob to cache: unknown to containerd, shared, and back only verified', async (t) => {
    await using store = await open(t);
    await store.delete(HELLO);
    await commitBytes(store, hello, { a: '1' });
    await store.delete(HELLO);
    assert.deepEqual([...(await store.list())], []);
    assert.equal(store.info(HELLO), undefined);
    assert.equal(store.adopt(HELLO), undefined);
    assert.equal(store.opened(HELLO), undefined);
    await rejects(store.open(HELLO), 'not_found');
    assert.equal(store.cached(HELLO)?.size_bytes, hello.length);
    assert.deepEqual([...store.shared()], [HELLO]);
    assert.equal(await store.restore(HELLO), true);
    assert.equal(await store.restore(HELLO), true);
    assert.deepEqual([store.info(HELLO)?.labels, store.cached(HELLO)], [{}, undefined]);
    assert.deepEqual([...(await store.list())], []);
    assert.equal(store.adopt(HELLO)?.size_bytes, hello.length);
    assert.equal([...(await store.list())].length, 1);
    assert.equal(await store.restore(EMPTY_SHA256), false);
  });

  it('reads anywhere, short only at the end, and knows nothing of absent blobs', async (t) => {
    await using store = await open(t);
    await rejects(store.open(HELLO), 'not_found');
    assert.equal(store.opened(HELLO), undefined);
    assert.equal(store.adopt(HELLO), undefined);
    await commitBytes(store, hello);
    const reader = await store.open(HELLO);
    assert.equal(reader.size_bytes, hello.length);
    assert.equal(Buffer.from(await reader.read(7, 4)).toString(), 'cont');
    assert.equal((await reader.read(hello.length, 4)).length, 0);
    assert.equal(Buffer.from(await reader.read(15, 40)).toString(), 'rd');
    assert.notEqual(store.opened(HELLO), undefined);
  });
}

function stagingCases(open: Open): void {
  const bytes = content(2 * PIECE_BYTES + 1000);
  const digest = digestOf(bytes);

  it('takes pieces in any order and publishes a blob that is not listed', async (t) => {
    await using store = await open(t);
    await using staged = await store.stage(digest, bytes.length);
    await rejects(store.stage(digest, bytes.length), 'already_exists');
    await writePieces(staged, bytes, [2, 1]);
    assert.deepEqual([staged.has(0), staged.has(2), staged.prefix_bytes], [false, true, 0]);
    await rejects(staged.publish(), 'failed_precondition');
    await writePieces(staged, bytes, [0, 0]);
    assert.equal(staged.prefix_bytes, bytes.length);
    assert.equal((await staged.publish()).size_bytes, bytes.length);
    assert.deepEqual([...(await store.list())], []);
    assert.equal(store.adopt(digest)?.size_bytes, bytes.length);
    assert.deepEqual(
      Buffer.from(await store.readPiece(digest, 2)),
      Buffer.alloc(1000, bytes.subarray(2 * PIECE_BYTES)),
    );
  });

  it('does not publish pieces that do not make the digest; they can be fetched anew, or all be given up', async (t) => {
    await using store = await open(t);
    {
      await using staged = await store.stage(digest, bytes.length);
      const wrong = Uint8Array.from(bytes);
      wrong[PIECE_BYTES]! ^= 1;
      await writePieces(staged, wrong);
      await rejects(staged.publish(), 'data_loss');
      assert.equal(store.info(digest), undefined);
      assert.deepEqual(await staged.reread(), [], 'they are what was written');
      await rejects(staged.publish(), 'data_loss');
    }
    await using again = await store.stage(digest, bytes.length);
    assert.equal(again.prefix_bytes, 0);
  });

  it('forgets pieces that are dropped, keeps the others, and publishes when they are written anew', async (t) => {
    await using store = await open(t);
    await using staged = await store.stage(digest, bytes.length);
    const wrong = Uint8Array.from(bytes);
    wrong[PIECE_BYTES]! ^= 1;
    await writePieces(staged, wrong);
    await rejects(staged.publish(), 'data_loss');
    await staged.drop([1, 1, 9]);
    assert.deepEqual(
      [0, 1, 2].map((i) => staged.has(i)),
      [true, false, true],
    );
    assert.equal(staged.prefix_bytes, PIECE_BYTES);
    await writePieces(staged, bytes, [1]);
    assert.equal(staged.prefix_bytes, bytes.length);
    assert.equal((await staged.publish()).size_bytes, bytes.length);
    assert.equal(
      Buffer.compare(
        await store.readPiece(digest, 1),
        bytes.subarray(PIECE_BYTES, 2 * PIECE_BYTES),
      ),
      0,
    );
  });

  it('gives a prefix that ends before a dropped piece', async (t) => {
    await using store = await open(t);
    await using staged = await store.stage(digest, bytes.length);
    await writePieces(staged, bytes);
    await staged.drop([1]);
    await using ingest = await store.ingest('r', { total_bytes: bytes.length });
    await ingest.takePrefix(staged, { move: true });
    assert.equal(ingest.status().offset_bytes, PIECE_BYTES);
    assert.equal(ingest.digest(), digestOf(bytes.subarray(0, PIECE_BYTES)));
    assert.deepEqual([staged.has(0), staged.has(2)], [false, true]);
  });

  it('refuses pieces of a wrong length or outside the blob, and any after its end', async (t) => {
    await using store = await open(t);
    const staged = await store.stage(digest, bytes.length);
    const piece = pieceOf(bytes, 0);
    await rejects(staged.write({ ...piece, index: 2 }), 'invalid_argument');
    await rejects(staged.write({ ...piece, index: 3 }), 'invalid_argument');
    await rejects(staged.write({ ...piece, index: -1 }), 'invalid_argument');
    await staged[Symbol.asyncDispose]();
    await rejects(staged.write(piece), 'not_found');
  });

  for (const move of [true, false]) {
    it(`gives its prefix to an ingest by ${move ? 'moving' : 'copying'}, which goes on from there`, async (t) => {
      await using store = await open(t);
      await using staged = await store.stage(digest, bytes.length);
      await writePieces(staged, bytes, [0, 2]);
      await using ingest = await store.ingest('r', { total_bytes: bytes.length });
      await ingest.write(bytes.subarray(0, 100));
      await ingest.takePrefix(staged, { move });
      assert.equal(ingest.status().offset_bytes, PIECE_BYTES);
      assert.equal(ingest.digest(), digestOf(bytes.subarray(0, PIECE_BYTES)));
      await ingest.write(bytes.subarray(PIECE_BYTES));
      await ingest.commit({ size_bytes: bytes.length, expected: digest, labels: {} });
      assert.deepEqual(
        Buffer.compare(
          await store.readPiece(digest, 1),
          bytes.subarray(PIECE_BYTES, 2 * PIECE_BYTES),
        ),
        0,
      );
      // What lay behind the prefix is not lost with it.
      assert.deepEqual([staged.holds_pieces, staged.has(0), staged.has(2)], [true, !move, true]);
      await staged.write(pieceOf(bytes, 1));
    });
  }

  it('gives a whole blob to an ingest', async (t) => {
    await using store = await open(t);
    await using staged = await store.stage(digest, bytes.length);
    await writePieces(staged, bytes);
    await using ingest = await store.ingest('r', { total_bytes: bytes.length });
    await ingest.takePrefix(staged, { move: true });
    assert.equal(ingest.digest(), digest);
    assert.equal(staged.holds_pieces, false);
    await rejects(staged.write(pieceOf(bytes, 1)), 'not_found');
    await ingest.commit({ size_bytes: bytes.length, expected: digest, labels: {} });
    const list = await store.pieceList(digest);
    assert.deepEqual(Buffer.from(pieceDigest(list, 2)), Buffer.from(pieceOf(bytes, 2).sha256));
  });
}

function sharingCases(open: Open): void {
  const bytes = content(PIECE_BYTES + 7);
  const digest = digestOf(bytes);

  it('shows committed blobs with their piece lists, and tells of changes', async (t) => {
    await using store = await open(t);
    const events: string[] = [];
    const stop = store.onShared(({ kind, digest: of }) => void events.push(`${kind} ${of}`));
    await commitBytes(store, bytes);
    await commitBytes(store, hello);
    assert.deepEqual([...store.shared()], [digest, HELLO]);
    assert.deepEqual(events, [`added ${digest}`, `added ${HELLO}`]);
    stop();
    await commitBytes(store, Buffer.from('unseen'));
    assert.equal(events.length, 2);
    const list = await store.pieceList(digest);
    assert.equal(list.size_bytes, bytes.length);
    assert.deepEqual(
      Buffer.from(list.digests),
      Buffer.concat([0, 1].map((i) => pieceOf(bytes, i).sha256)),
    );
    const own = await store.pieceList(HELLO);
    assert.deepEqual(Buffer.from(own.digests), createHash('sha256').update(hello).digest());
  });

  it('serves pieces, and nothing outside a blob or of an unknown one', async (t) => {
    await using store = await open(t);
    await commitBytes(store, bytes);
    const last = await store.readPiece(digest, 1);
    assert.deepEqual(Buffer.from(last), Buffer.from(pieceOf(bytes, 1).bytes));
    await rejects(store.readPiece(digest, 2), 'out_of_range');
    await rejects(store.readPiece(HELLO, 0), 'not_found');
    await rejects(store.pieceList(HELLO), 'not_found');
  });
}
