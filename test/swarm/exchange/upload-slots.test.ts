import assert from 'node:assert/strict';
import { test } from 'node:test';
import { UploadSlots } from '../../../src/swarm/exchange/upload-slots.ts';
import { settle } from '../../fakes/fake-clock.ts';

const signal = new AbortController().signal;

test('upload slots are handed on in order and more askers than may wait are told "busy"', async () => {
  const slots = new UploadSlots({ slots: 1, max_waiting: 2 });
  const first = await slots.acquire(signal);
  const order: number[] = [];
  const quit = new AbortController();
  const second = slots.acquire(quit.signal);
  const third = slots.acquire(signal).then((slot) => {
    order.push(3);
    return slot;
  });
  assert.equal(await slots.acquire(signal), undefined);
  quit.abort(new Error('asker went away'));
  await assert.rejects(second);
  first![Symbol.dispose]();
  const slot = await third;
  assert.deepEqual(order, [3]);
  slot![Symbol.dispose]();
  slot![Symbol.dispose]();
  await settle();
  assert.equal(slots.used, 0);
});
