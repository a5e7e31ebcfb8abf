import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PingAnswers } from '../../src/rpc/h2/ping-answers.ts';
import { FakeClock } from '../fakes/fake-clock.ts';

function answers(signal: AbortSignal = new AbortController().signal) {
  const clock = new FakeClock();
  const sent: string[] = [];
  const pings = new PingAnswers(
    {
      clock,
      send: (payload) => void sent.push(`now ${payload[0]}`),
      sendLate: (payload) => void sent.push(`late ${payload[0]}`),
    },
    signal,
  );
  return { clock, sent, pings };
}

test('a PING is answered a little later, with its own bytes', async () => {
  const { clock, sent, pings } = answers();
  const payload = Buffer.alloc(8, 7);
  pings.ping(payload);
  payload.fill(0); // lent for the call only
  assert.deepEqual(sent, []);
  await clock.advance(50);
  assert.deepEqual(sent, ['late 7']);
});

test('a second PING does not wait for the first one, and no more than one waits', async () => {
  const { clock, sent, pings } = answers();
  for (const n of [1, 2, 3]) pings.ping(Buffer.alloc(8, n));
  assert.deepEqual(sent, ['now 1', 'now 2']);
  await clock.advance(50);
  assert.deepEqual(sent, ['now 1', 'now 2', 'late 3']);
  pings.ping(Buffer.alloc(8, 4));
  await clock.advance(50);
  assert.equal(sent.at(-1), 'late 4');
});

test('nothing is answered on a connection that is gone', async () => {
  const gone = new AbortController();
  const { clock, sent, pings } = answers(gone.signal);
  pings.ping(Buffer.alloc(8, 1));
  gone.abort();
  await clock.advance(50);
  assert.deepEqual(sent, []);
});
