import assert from 'node:assert/strict';
import { test } from 'node:test';
import { systemClock } from '../../src/base/clock.ts';
import { FakeClock } from '../fakes/fake-clock.ts';

test('the wall clock has digits below a millisecond and stays inside the millisecond that Date.now shows', () => {
  let fractions = 0;
  for (let i = 0; i < 2000; i++) {
    const before_ms = Date.now();
    const ns = systemClock.wall_ns();
    const after_ms = Date.now();
    assert.ok(ns >= BigInt(before_ms) * 1_000_000n, 'not before the call');
    assert.ok(ns < BigInt(after_ms + 1) * 1_000_000n, 'not after the call');
    if (ns % 1_000_000n !== 0n) fractions++;
  }
  assert.ok(fractions > 1000);
});

test('a sleep whose signal is aborted already rejects with the reason, at once and without a timer', async () => {
  const reason = new Error('gone');
  await assert.rejects(systemClock.sleep(60_000, { signal: AbortSignal.abort(reason) }), reason);
});

test('an abort ends a sleep and leaves no timer', async () => {
  for (const clock of [systemClock, new FakeClock()]) {
    const controller = new AbortController();
    const slept = clock.sleep(60_000, { signal: controller.signal });
    const reason = new Error('gone');
    controller.abort(reason);
    await assert.rejects(slept, reason);
  }
});
