import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Clock, systemClock } from '../../src/base/clock.ts';
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

test('the wall clock is right from its first reading on', async () => {
  const early_ns: number[] = [];
  for (let run = 0; run < 11; run++) {
    // A module of its own: a clock that nobody has read yet.
    const url = new URL(`../../src/base/clock.ts?run=${run}`, import.meta.url).href;
    const { systemClock: fresh } = (await import(url)) as { systemClock: Clock };
    const begun = Date.now();
    let last = fresh.wall_ns();
    let before = last;
    while (Date.now() === begun) [before, last] = [last, fresh.wall_ns()];
    // Read just before the millisecond ended: by how much it was too early.
    early_ns.push(Number(BigInt(begun + 1) * 1_000_000n - before));
  }
  early_ns.sort((a, b) => a - b);
  // The middle one: now and then the machine has something else to do just before the millisecond ends.
  assert.ok(early_ns[5]! < 100_000, `${early_ns.join(', ')} ns too early`);
});
