import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { digestOf } from '../../src/oci/digest.ts';
import { PIECE_BYTES } from '../../src/piece/layout.ts';
import { decodeListFile, encodeListFile } from '../../src/store/blobs/piece-list-file.ts';

const digest = digestOf(Buffer.from('blob'));
const list = {
  size_bytes: 3 * PIECE_BYTES - 1,
  mtime_ns: 1_700_000_000_123_456_789n,
  ino: 2n ** 63n + 5n,
  digests: new Uint8Array(randomBytes(96)),
};

describe('the file of a piece list', () => {
  it('gives back what was put in, for any list', () => {
    const lists = fc.record({
      size_bytes: fc.integer({ min: 0, max: 40 * PIECE_BYTES }),
      mtime_ns: fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }),
      ino: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
    });
    fc.assert(
      fc.property(lists, (header) => {
        const count = Math.ceil(header.size_bytes / PIECE_BYTES);
        const any = { ...header, digests: new Uint8Array(randomBytes(count * 32)) };
        assert.deepEqual(decodeListFile(digest, encodeListFile(digest, any)), any);
      }),
    );
  });

  it('is refused, never thrown upon, when it is any other bytes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 400 }), (bytes) => {
        assert.equal(decodeListFile(digest, bytes), undefined);
      }),
    );
  });

  it('is refused when a byte is changed, cut off or added, and under another name', () => {
    const file = encodeListFile(digest, list);
    fc.assert(
      fc.property(fc.nat(file.length - 1), fc.integer({ min: 1, max: 255 }), (at, change) => {
        const wrong = Uint8Array.from(file);
        wrong[at]! ^= change;
        assert.equal(decodeListFile(digest, wrong), undefined);
        assert.equal(decodeListFile(digest, file.subarray(0, at)), undefined);
      }),
    );
    assert.equal(decodeListFile(digest, Buffer.concat([file, Buffer.alloc(1)])), undefined);
    assert.equal(decodeListFile(digestOf(Buffer.from('other')), file), undefined);
  });
});
