import assert from 'node:assert/strict';
import { test } from 'node:test';
import { UploadRate } from '../../../src/swarm/exchange/upload-rate.ts';
import { FakeClock } from '../../fakes/fake-clock.ts';

const MIB = 1024 * 1024;

test('a slice is a fiftieth of a second of the limit, and so many uploads share it that each moves', () => {
  for (const { bytes_per_second, slice_bytes, uploads } of [
    { bytes_per_second: 0, slice_bytes: Infinity, uploads: Infinity },
    { bytes_per_second: 64 * MIB, slice_bytes: Math.ceil((64 * MIB) / 50), uploads: 256 },
    { bytes_per_second: 2 * MIB, slice_bytes: Math.ceil((2 * MIB) / 50), uploads: 8 },
    { bytes_per_second: 64 * 1024, slice_bytes: 4096, uploads: 1 },
  ]) {
    const rate = new UploadRate({ clock: new FakeClock() }, { bytes_per_second });
    assert.deepEqual([rate.slice_bytes, rate.uploads], [slice_bytes, uploads]);
  }
});

test('with as many uploads as a limit feeds, each gets a slice every sixth of a second', async () => {
  const clock = new FakeClock();
  const rate = new UploadRate({ clock }, { bytes_per_second: 2 * MIB });
  const stop = new AbortController();
  let longest_ms = 0;
  const upload = async (): Promise<void> => {
    for (;;) {
      const from_ms = clock.now_ms();
      await rate.take(rate.slice_bytes, stop.signal);
      longest_ms = Math.max(longest_ms, clock.now_ms() - from_ms);
    }
  };
  const uploads = Array.from({ length: rate.uploads }, () => upload().catch(() => undefined));
  await clock.advance(3000);
  stop.abort();
  await Promise.all(uploads);
  assert.ok(longest_ms < 170, `an upload stood still for ${longest_ms} ms`);
});
