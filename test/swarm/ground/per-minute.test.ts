import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PerMinute } from '../../../src/swarm/ground/per-minute.ts';
import { FakeClock } from '../../fakes/fake-clock.ts';

test('a line that strangers provoke is written once per key and minute', async () => {
  const clock = new FakeClock();
  const may = new PerMinute(clock);
  assert.ok(may.allows('a'));
  assert.ok(!may.allows('a'));
  assert.ok(may.allows('b'));
  await clock.advance(60_000);
  assert.ok(may.allows('a'));
});
