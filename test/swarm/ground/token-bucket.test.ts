import assert from 'node:assert/strict';
import { test } from 'node:test';
import { TokenBucket } from '../../../src/swarm/ground/token-bucket.ts';
import { FakeClock } from '../../fakes/fake-clock.ts';

const signal = new AbortController().signal;

test('a token bucket lets its burst through and then its rate', async () => {
  const clock = new FakeClock();
  const bucket = new TokenBucket(clock, { per_second: 10, burst: 5 });
  assert.ok(bucket.tryTake(5));
  assert.ok(!bucket.tryTake(1));
  await clock.advance(100);
  assert.ok(bucket.tryTake(1));
  assert.ok(!bucket.tryTake(1));
  let done = false;
  const wait = bucket.take(20, signal).then(() => {
    done = true;
  });
  await clock.advance(1999);
  assert.ok(!done);
  await clock.advance(1);
  await wait;
});

test('a bucket without a rate never waits', async () => {
  await new TokenBucket(new FakeClock(), { per_second: 0, burst: 0 }).take(1e12, signal);
});
