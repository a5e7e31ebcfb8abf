import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  type Busy,
  type UploadSlot,
  UploadSlots,
} from '../../../src/swarm/exchange/upload-slots.ts';
import { FakeClock, settle } from '../../fakes/fake-clock.ts';

const signal = new AbortController().signal;

function slotsOf(config: { slots: number; max_waiting?: number }) {
  const clock = new FakeClock();
  const slots = new UploadSlots({ clock }, { max_waiting: 16, ...config });
  const ask = (asker: string, patience_ms = 1000, quit = signal, waited_ms = 0) =>
    slots.acquire({ asker, patience_ms, waited_ms }, quit);
  return { clock, slots, ask };
}

function granted(slot: UploadSlot | Busy): UploadSlot {
  assert.ok(!('retry_after_ms' in slot), 'busy');
  return slot;
}

function refused(slot: UploadSlot | Busy): number {
  assert.ok('retry_after_ms' in slot, 'not busy');
  return slot.retry_after_ms;
}

/** Takes a slot and keeps it for so long, so that the next askers know what a piece takes. */
async function serve(clock: FakeClock, slot: UploadSlot, ms: number): Promise<void> {
  await clock.advance(ms);
  slot[Symbol.dispose]();
}

test('upload slots are handed on in order, and who gives up while waiting is passed over', async () => {
  const { slots, ask } = slotsOf({ slots: 1 });
  const first = granted(await ask('a'));
  const order: string[] = [];
  const quit = new AbortController();
  const second = ask('b', 1000, quit.signal);
  const third = ask('c').then((slot) => {
    order.push('c');
    return slot;
  });
  quit.abort(new Error('asker went away'));
  await assert.rejects(second, /went away/);
  assert.equal(slots.waiting, 1);
  first[Symbol.dispose]();
  const slot = granted(await third);
  assert.deepEqual(order, ['c']);
  slot[Symbol.dispose]();
  slot[Symbol.dispose]();
  await settle();
  assert.equal(slots.used, 0);
});

test('nobody waits longer for a slot than half of its patience, and a first-version asker no longer than 500 ms', async () => {
  for (const { patience_ms, waits_ms } of [
    { patience_ms: 1000, waits_ms: 500 },
    { patience_ms: 3000, waits_ms: 1500 },
    { patience_ms: 0, waits_ms: 500 },
  ]) {
    const { clock, slots, ask } = slotsOf({ slots: 1 });
    await ask('a');
    const answers: (UploadSlot | Busy)[] = [];
    void ask('b', patience_ms).then((slot) => answers.push(slot));
    await clock.advance(waits_ms - 1);
    assert.equal(answers.length, 0);
    await clock.advance(1);
    assert.ok(refused(answers[0]!) >= 50);
    assert.equal(slots.waiting, 0);
  }
});

test('who cannot begin in time is told so at once, each with the time until its own turn', async () => {
  const { clock, ask } = slotsOf({ slots: 2 });
  // A piece takes two seconds here.
  await serve(clock, granted(await ask('measured')), 2000);
  await Promise.all([ask('a'), ask('b')]);
  // With two slots one turn comes each second; back a quarter of a second early, to be there when it comes.
  assert.equal(refused(await ask('c')), 750);
  assert.equal(refused(await ask('d')), 1750);
  assert.equal(refused(await ask('e')), 2750);
  assert.equal(refused(await ask('d')), 1750, 'asking again costs nobody a place');
});

test('who comes back when told has kept its turn before those that came later', async () => {
  const { clock, ask } = slotsOf({ slots: 1 });
  await serve(clock, granted(await ask('measured')), 1000);
  const first = granted(await ask('a'));
  const told_ms = refused(await ask('b'));
  await clock.advance(told_ms);
  const order: string[] = [];
  const waiting = ['late', 'b'].map((asker) =>
    ask(asker, 10_000).then((slot) => {
      order.push(asker);
      return granted(slot);
    }),
  );
  await settle();
  first[Symbol.dispose]();
  await settle();
  assert.deepEqual(order, ['b']);
  (await waiting[1]!)[Symbol.dispose]();
  await waiting[0];
  assert.deepEqual(order, ['b', 'late']);
});

test('a free slot is given to who is there, whoever else has a turn', async () => {
  const { clock, ask } = slotsOf({ slots: 1 });
  await serve(clock, granted(await ask('measured')), 4000);
  const first = granted(await ask('a'));
  refused(await ask('b'));
  first[Symbol.dispose]();
  granted(await ask('late'));
});

test('peers take turns however many streams each of them has', async () => {
  const { ask } = slotsOf({ slots: 1 });
  const order: string[] = [];
  let holding = granted(await ask('greedy', 60_000));
  for (const asker of ['greedy', 'greedy', 'greedy', 'modest', 'other']) {
    void ask(asker, 60_000).then((slot) => {
      order.push(asker);
      holding = granted(slot);
    });
  }
  for (let i = 0; i < 5; i++) {
    holding[Symbol.dispose]();
    await settle();
  }
  assert.deepEqual(order, ['greedy', 'modest', 'other', 'greedy', 'greedy']);
});

test('those that may wait are bounded, and a turn that nobody comes back for is forgotten', async () => {
  const { slots, ask } = slotsOf({ slots: 1, max_waiting: 1 });
  await ask('a');
  void ask('b', 60_000);
  await settle();
  refused(await ask('c', 60_000));
  assert.equal(slots.waiting, 1);
  assert.equal(slots.load, 1);

  const other = slotsOf({ slots: 1 });
  await serve(other.clock, granted(await other.ask('measured')), 1000);
  await other.ask('a');
  const told_ms = refused(await other.ask('absent'));
  await other.clock.advance(told_ms + 501);
  const expected_ms = refused(await other.ask('b', 100));
  assert.ok(expected_ms < 2000, `still behind one that is gone: ${expected_ms} ms`);
});

test('a piece that takes longer than all before it moves the estimate', async () => {
  const { clock, ask } = slotsOf({ slots: 1 });
  await ask('a');
  await clock.advance(8000);
  assert.equal(refused(await ask('b')), 7750);
  await clock.advance(120_000);
  assert.equal(refused(await ask('c')), 60_000, 'the wire tells no more than a minute');
});
