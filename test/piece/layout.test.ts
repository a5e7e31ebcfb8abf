import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  MAX_BLOB_BYTES,
  PIECE_BYTES,
  pieceCount,
  pieceLength,
  pieceOffset,
} from '../../src/piece/layout.ts';
import { isWellFormed, pieceDigest } from '../../src/piece/piece-list.ts';
import { EMPTY_SHA256 } from '../../src/oci/digest.ts';

test('the pieces of a blob cover it without gap or overlap', () => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 200 * PIECE_BYTES }), (size) => {
      let end = 0;
      for (let i = 0; i < pieceCount(size); i++) {
        assert.equal(pieceOffset(i), end);
        const length = pieceLength(size, i);
        assert.ok(length > 0 && length <= PIECE_BYTES);
        end += length;
      }
      assert.equal(end, size);
      assert.equal(pieceLength(size, pieceCount(size)), 0);
      assert.equal(pieceLength(size, -1), 0);
    }),
  );
});

test('a blob beyond 4 GiB keeps exact offsets', () => {
  assert.equal(pieceOffset(pieceCount(MAX_BLOB_BYTES) - 1) + PIECE_BYTES, MAX_BLOB_BYTES);
});

test('a piece list is well formed only with one digest for each piece', () => {
  const list = (n: number, size_bytes: number) => ({
    digest: EMPTY_SHA256,
    size_bytes,
    digests: new Uint8Array(n),
  });
  assert.ok(isWellFormed(list(0, 0)));
  assert.ok(isWellFormed(list(32, 1)));
  assert.ok(isWellFormed(list(64, PIECE_BYTES + 1)));
  assert.ok(!isWellFormed(list(32, PIECE_BYTES + 1)));
  assert.ok(!isWellFormed(list(31, 1)));
  assert.ok(!isWellFormed(list(32, 1.5)));
  assert.ok(!isWellFormed(list(0, -1)));
});

test('the digest of a piece is a view at its place', () => {
  const digests = Uint8Array.from({ length: 96 }, (_, i) => i);
  assert.deepEqual([...pieceDigest({ digests }, 1)], [...digests.subarray(32, 64)]);
});
