import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { DaemonError, hasCode } from '../../src/base/errors.ts';
import { digestOf } from '../../src/oci/digest.ts';
import { pieceCount, pieceLength, pieceOffset } from '../../src/piece/layout.ts';
import { isWellFormed } from '../../src/piece/piece-list.ts';
import type { PieceSource } from '../../src/piece/source.ts';
import { listOf } from '../fakes/scripted-source.ts';

/** A source under test. `silent` accepts requests and never answers. Dispose it to end what stands behind it. */
type SourceUnderTest = AsyncDisposable & { readonly source: PieceSource };

/** Makes a source for `bytes` whose holder has it whole, does not have it, is busy, or accepts requests and stays silent. */
export type OpenSource = (
  state: 'whole' | 'missing' | 'busy' | 'silent',
  bytes: Uint8Array,
) => Promise<SourceUnderTest>;

/** Two and a half pieces whose bytes differ from piece to piece. */
function blob(): Uint8Array {
  const bytes = new Uint8Array(2.5 * 4 * 1024 * 1024);
  for (let i = 0; i < bytes.length; i += 997) bytes[i] = (i >> 12) & 0xff;
  return bytes;
}

const never = new AbortController().signal;

/**
 * Behaviours every PieceSource shows. Run it on the fake and on each real one. A source of kind `registry` has no piece lists to claim: it
 * says so with `unimplemented`, whatever it holds; and wrong bytes cost it that blob, never its whole host.
 */
export function pieceSourceSuite(
  name: string,
  open: OpenSource,
  { lists = true }: { readonly lists?: boolean } = {},
): void {
  const bytes = blob();
  const digest = digestOf(bytes);
  const last = pieceCount(bytes.length) - 1;

  describe(`${name} as a PieceSource`, () => {
    const givesList = async (): Promise<void> => {
      await using s = await open('whole', bytes);
      const list = await s.source.list({ max_pieces: last + 1, signal: never });
      assert.equal(isWellFormed(list), true);
      assert.deepEqual(
        { ...list, digests: Buffer.from(list.digests) },
        { ...listOf(digest, bytes), digests: Buffer.from(listOf(digest, bytes).digests) },
      );
    };
    const saysNoList = async (): Promise<void> => {
      await using s = await open('whole', bytes);
      const none = (e: unknown): boolean => hasCode(e, 'unimplemented');
      await assert.rejects(s.source.list({ max_pieces: last + 1, signal: never }), none);
    };
    if (lists) it('gives the piece list of the blob', givesList);
    else it('says unimplemented, for it has no piece lists to claim', saysNoList);

    it('refuses a list with more entries than it may take', async () => {
      await using s = await open('whole', bytes);
      const refused = s.source.list({ max_pieces: last, signal: never });
      await assert.rejects(refused, (e) => e instanceof DaemonError);
      const piece = await s.source.fetch(last, pieceLength(bytes.length, last), { signal: never });
      assert.equal(piece.index, last, 'the source is of use still');
    });

    it('gives every piece with its index and exact length, the short last one too', async () => {
      await using s = await open('whole', bytes);
      for (let index = 0; index <= last; index++) {
        const length = pieceLength(bytes.length, index);
        const piece = await s.source.fetch(index, length, { signal: never });
        assert.equal(piece.index, index);
        const want = bytes.subarray(pieceOffset(index), pieceOffset(index) + length);
        assert.equal(Buffer.compare(piece.bytes, want), 0);
      }
    });

    it('gives bytes that belong to the caller', async () => {
      await using s = await open('whole', bytes);
      const length = pieceLength(bytes.length, 0);
      const first = await s.source.fetch(0, length, { signal: never });
      first.bytes.fill(255);
      const second = await s.source.fetch(0, length, { signal: never });
      assert.equal(Buffer.compare(second.bytes, bytes.subarray(0, length)), 0);
    });

    it('reports progress that grows up to the length', async () => {
      await using s = await open('whole', bytes);
      const length = pieceLength(bytes.length, 0);
      const seen: number[] = [];
      const onProgress = (n: number): void => void seen.push(n);
      await s.source.fetch(0, length, { signal: never, onProgress });
      assert.deepEqual(
        seen,
        seen.toSorted((a, b) => a - b),
      );
      assert.equal(seen.at(-1), length);
    });

    it('serves as many requests at once as its depth says', async () => {
      await using s = await open('whole', bytes);
      assert.equal(s.source.depth >= 1, true);
      const length = pieceLength(bytes.length, last);
      const asked = Array.from({ length: s.source.depth }, () =>
        s.source.fetch(last, length, { signal: never }),
      );
      for (const piece of await Promise.all(asked)) assert.equal(piece.bytes.length, length);
    });

    it('ends a request when its signal fires', async () => {
      await using s = await open('silent', bytes);
      const end = new AbortController();
      const asked = s.source.fetch(0, pieceLength(bytes.length, 0), { signal: end.signal });
      const reason = new Error('not wanted any more');
      end.abort(reason);
      await assert.rejects(asked, reason);
    });

    it('refuses a request whose signal has fired already', async () => {
      await using s = await open('whole', bytes);
      const reason = new Error('never wanted');
      const signal = AbortSignal.abort(reason);
      await assert.rejects(s.source.fetch(0, 1, { signal }), reason);
      await assert.rejects(s.source.list({ max_pieces: 9, signal }), reason);
    });

    it('counts into the standing of its host whatever comes', async () => {
      await using s = await open('whole', bytes);
      const { standing } = s.source;
      assert.equal(standing.heard_ms, -Infinity);
      const length = pieceLength(bytes.length, last);
      await s.source.fetch(last, length, { signal: never });
      assert.equal(standing.received_bytes, length);
      assert.notEqual(standing.heard_ms, -Infinity);
      assert.notEqual(standing.first_byte_ms, undefined);
      assert.equal(standing.in_flight, 0, 'that is the business of who plans');
      standing.begin()();
    });

    it('shows in the standing of its host what it is blamed for', async () => {
      await using s = await open('whole', bytes);
      const { standing } = s.source;
      assert.equal(standing.excluded(), undefined);
      s.source.blame('busy', { retry_after_ms: 9000 });
      assert.deepEqual([standing.excluded()?.reason, standing.demoted()], ['busy', undefined]);
      s.source.blame('stalled');
      assert.deepEqual([standing.excluded()?.reason, standing.demoted()], ['stalled', 'stalled']);
      s.source.blame('wrong_piece');
      assert.equal(standing.excluded()?.reason, lists ? 'banned' : 'stalled');
    });

    it('says not_found for a blob its holder does not have', async () => {
      await using s = await open('missing', bytes);
      const missing = (e: unknown): boolean => hasCode(e, 'not_found');
      if (lists) await assert.rejects(s.source.list({ max_pieces: 9, signal: never }), missing);
      await assert.rejects(
        s.source.fetch(0, pieceLength(bytes.length, 0), { signal: never }),
        missing,
      );
    });

    it('says unavailable for a piece while its holder is busy, and when to come back if it knows', async () => {
      await using s = await open('busy', bytes);
      const length = pieceLength(bytes.length, 0);
      await assert.rejects(
        s.source.fetch(0, length, { signal: never, patience_ms: 1000 }),
        (e: unknown) => {
          if (!hasCode(e, 'unavailable')) return false;
          const { retry_after_ms: after } = e.facts;
          return (
            after === undefined || (Number.isInteger(after) && +after >= 1 && +after <= 60_000)
          );
        },
      );
    });
  });
}
