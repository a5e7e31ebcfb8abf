import assert from 'node:assert/strict';
import { test } from 'node:test';
import { WritePace } from '../../../src/swarm/exchange/write-pace.ts';

const KIB = 1024;

/** Writes so many bytes over a link of that rate; returns the size of the longest write. */
function over(pace: WritePace, bytes_per_ms: number, bytes: number): number {
  let longest = 0;
  for (let at = 0; at < bytes; at += pace.bytes) {
    const size = pace.bytes;
    longest = Math.max(longest, size);
    pace.wrote(size, size / bytes_per_ms);
  }
  return longest;
}

test('writes grow to 1 MiB on a fast link and shrink to 16 KiB on a slow one', () => {
  const pace = new WritePace('tcp');
  assert.equal(pace.bytes, 16 * KIB);
  over(pace, 500 * KIB, 64 * KIB * KIB);
  assert.equal(pace.bytes, 1024 * KIB);
  // 0.4 Mbit/s
  over(pace, 50, 4096 * KIB);
  assert.equal(pace.bytes, 16 * KIB);
});

test('a link of 1 to 8 Mbit/s sees a whole write every 30 to 130 ms', () => {
  for (const { bytes_per_ms, longest } of [
    { bytes_per_ms: 125, longest: 16 * KIB },
    { bytes_per_ms: 500, longest: 16 * KIB },
    { bytes_per_ms: 1000, longest: 32 * KIB },
  ]) {
    assert.equal(over(new WritePace('tcp'), bytes_per_ms, 8192 * KIB), longest);
  }
});

test('what the buffers of a slow link swallow at once is no proof of speed', () => {
  const pace = new WritePace('tcp');
  for (let i = 0; i < 63; i++) pace.wrote(16 * KIB, 0);
  pace.wrote(16 * KIB, 90);
  for (let i = 0; i < 63; i++) pace.wrote(16 * KIB, 0);
  assert.equal(pace.bytes, 16 * KIB);
});

test('the short end of a piece moves nothing', () => {
  const pace = new WritePace('tcp');
  for (let i = 0; i < 1000; i++) pace.wrote(10 * KIB, 0);
  assert.equal(pace.bytes, 16 * KIB);
});

test('over QUIC writes begin at 256 KiB, grow on a fast link and shrink on a slow one', () => {
  const pace = new WritePace('quic');
  assert.equal(over(pace, 200 * KIB, 16 * KIB * KIB), 1024 * KIB);
  // 0.4 Mbit/s
  const slow = new WritePace('quic');
  assert.equal(over(slow, 50, 4096 * KIB), 256 * KIB);
  assert.equal(slow.bytes, 16 * KIB);
});
