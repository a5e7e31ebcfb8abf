import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { ReadSize } from '../../../../src/swarm/transport/quic/read-size.ts';
import { writeSlices } from '../../../../src/swarm/transport/quic/write-slices.ts';

test('slices carry the same bytes in order, none empty and none above the limit', () => {
  const part = fc.integer({ min: 0, max: 200_000 }).map((n) => Buffer.alloc(n, n % 251));
  fc.assert(
    fc.property(
      fc.array(part, { maxLength: 12 }),
      fc.integer({ min: 1_000, max: 300_000 }),
      (parts, most) => {
        const slices = [...writeSlices(parts, most)];
        assert.ok(slices.every((s) => s.byteLength > 0 && s.byteLength <= Math.max(most, 1)));
        assert.ok(Buffer.concat(slices).equals(Buffer.concat(parts)));
      },
    ),
    { numRuns: 60 },
  );
});

test('a large part is not copied and small neighbours are joined', () => {
  const large = Buffer.alloc(300_000);
  const slices = [...writeSlices([Buffer.from('ab'), Buffer.from('cd'), large], 200_000)];
  assert.deepEqual(
    slices.map((s) => s.byteLength),
    [4, 200_000, 100_000],
  );
  assert.equal(slices[1]?.buffer, large.buffer);
});

test('the read size grows to its limit while data flows and shrinks on small messages', () => {
  const size = new ReadSize(256 * 1024);
  for (let n = 0; n < 4; n++) size.got(size.bytes);
  assert.equal(size.bytes, 256 * 1024);
  size.got(100 * 1024);
  assert.equal(size.bytes, 256 * 1024);
  for (let n = 0; n < 10; n++) size.got(10);
  assert.equal(size.bytes, 16 * 1024);
  assert.equal(new ReadSize(8 * 1024).bytes, 8 * 1024);
});
