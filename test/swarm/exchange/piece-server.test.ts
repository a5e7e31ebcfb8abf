import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { hasCode } from '../../../src/base/errors.ts';
import { digestOf } from '../../../src/oci/digest.ts';
import { PIECE_BYTES } from '../../../src/piece/layout.ts';
import { encodeRequest } from '../../../src/swarm/exchange/piece-protocol.ts';
import { settle } from '../../fakes/fake-clock.ts';
import type { MemoryStream } from '../memory-stream.ts';
import { answersOf, fill, LARGE, server, SlowBlobs } from './one-end.ts';

const digest = digestOf(Buffer.from('blob'));

test('a piece leaves in parts of at most 1 MiB, each after the drain of the one before', async () => {
  const { blobs, near, far, slots } = server();
  const bytes = randomBytes(PIECE_BYTES);
  const held = blobs.put(bytes);
  near.holds = true;
  far.send(encodeRequest({ kind: 'piece', id: 1, digest: held, index: 0, length: PIECE_BYTES }));
  for (let parts = 1; slots.used > 0 || parts === 1; parts++) {
    await settle();
    assert.equal(near.sent.length, parts);
    near.drain();
    await settle();
  }
  assert.ok(near.sent.every((part) => part.length <= 1024 * 1024));
  assert.ok(Buffer.concat(near.sent.slice(1)).equals(bytes));
});

for (const how of ['vanishes', 'reads nothing for ten seconds'] as const) {
  test(`a receiver that ${how} frees its upload slot`, async () => {
    const { blobs, near, far, slots, clock } = server();
    const length = 100_000;
    const held = blobs.put(randomBytes(length));
    near.holds = true;
    far.send(encodeRequest({ kind: 'piece', id: 1, digest: held, index: 0, length }));
    await settle();
    assert.equal(slots.used, 1);
    if (how === 'vanishes') far.abort(new Error('gone'));
    else await clock.advance(10_000);
    await settle();
    assert.equal(slots.used, 0);
    assert.notEqual(near.status, 'open');
  });
}

test('a receiver that reads so little that its slot would be gone for minutes frees it', async () => {
  const { blobs, near, far, slots, clock } = server();
  const held = blobs.put(randomBytes(PIECE_BYTES));
  near.holds = true;
  far.send(encodeRequest({ kind: 'piece', id: 1, digest: held, index: 0, length: PIECE_BYTES }));
  let taken_ms = 0;
  while (slots.used > 0 || taken_ms === 0) {
    await clock.advance(9000);
    taken_ms += 9000;
    assert.ok(taken_ms < 60_000, 'it keeps its slot');
    near.drain();
    await settle();
  }
  assert.equal(near.status, 'aborted');
});

test('requests beyond those that may queue are answered busy, a cancelled one is never read', async () => {
  const { blobs, near, far } = server();
  const held = blobs.put(randomBytes(100));
  near.holds = true;
  const ids = Array.from({ length: 20 }, (_, i) => i + 1);
  for (const id of ids)
    far.send(encodeRequest({ kind: 'piece', id, digest: held, index: 0, length: 100 }));
  far.send(encodeRequest({ kind: 'cancel', id: 2 }));
  await settle();
  near.holds = false;
  near.drain();
  await settle(40);
  const answers = answersOf(near);
  assert.deepEqual(
    answers.map((a) => a.id),
    ids,
  );
  const busy = answers.filter((a) => a.status === 'busy').map((a) => a.id);
  assert.deepEqual(busy, [2, 18, 19, 20]);
  assert.equal(blobs.reads, 16);
});

test('a flood of requests ends the connection', async () => {
  const { near, far, errors } = server();
  near.holds = true;
  for (let id = 1; id <= 70; id++) {
    far.send(encodeRequest({ kind: 'list', id, digest, max_pieces: 1 }));
  }
  await settle();
  assert.ok(hasCode(errors[0], 'protocol_error'));
  assert.equal(near.status, 'aborted');
});

test('a piece that cannot begin within half of the patience is answered busy, with the time to come back after', async () => {
  const all = server();
  const held = all.blobs.put(randomBytes(LARGE));
  await fill(all, held);
  const ask = { kind: 'piece', id: 7, digest: held, index: 0, length: LARGE } as const;
  all.far.send(encodeRequest({ ...ask, patience_ms: 2000 }));
  await all.clock.advance(999);
  assert.deepEqual(answersOf(all.near), []);
  await all.clock.advance(1);
  const [answer] = answersOf(all.near);
  assert.deepEqual([answer?.id, answer?.status], [7, 'busy']);
  assert.ok(answer!.retry_after_ms! > 0);
  assert.equal(all.slots.waiting, 0);
});

test('requests behind one that was told busy are told so at once, not after a wait of their own', async () => {
  const all = server();
  const held = all.blobs.put(randomBytes(LARGE));
  await fill(all, held);
  for (const id of [1, 2, 3]) {
    const ask = { kind: 'piece', id, digest: held, index: 0, length: LARGE } as const;
    all.far.send(encodeRequest({ ...ask, patience_ms: 1000 }));
  }
  await all.clock.advance(500);
  assert.deepEqual(
    answersOf(all.near).map(({ id, status }) => [id, status]),
    [
      [1, 'busy'],
      [2, 'busy'],
      [3, 'busy'],
    ],
  );
});

test('a cancel reaches the request that waits for a slot: nothing is read or sent for it', async () => {
  const all = server();
  const held = all.blobs.put(randomBytes(LARGE));
  await fill(all, held);
  const reads = all.blobs.reads;
  all.far.send(encodeRequest({ kind: 'piece', id: 7, digest: held, index: 0, length: LARGE }));
  await settle();
  assert.equal(all.slots.waiting, 1);
  all.far.send(encodeRequest({ kind: 'cancel', id: 7 }));
  await settle();
  assert.equal(all.slots.waiting, 0);
  assert.equal(all.blobs.reads, reads);
  assert.deepEqual(
    answersOf(all.near).map(({ id, status }) => [id, status]),
    [[7, 'busy']],
  );
});

test('an asker that vanishes while it waits for a slot is waited for no longer', async () => {
  const all = server();
  const held = all.blobs.put(randomBytes(LARGE));
  await fill(all, held);
  const reads = all.blobs.reads;
  all.far.send(encodeRequest({ kind: 'piece', id: 7, digest: held, index: 0, length: LARGE }));
  await settle();
  assert.equal(all.slots.waiting, 1);
  all.far.abort(new Error('gone'));
  await settle();
  assert.equal(all.slots.waiting, 0);
  assert.equal(all.blobs.reads, reads);
});

test('a cancel reaches the request that is being read or waits for the upload limit', async () => {
  for (const what of ['read', 'limit'] as const) {
    const blobs = new SlowBlobs();
    const all = server({ blobs, ...(what === 'limit' && { bytes_per_second: 512 * 1024 }) });
    const held = blobs.put(randomBytes(LARGE));
    if (what === 'limit') {
      // Another peer has used the burst up and pays it back.
      blobs.open.resolve(undefined);
      const [, other] = all.join('other');
      other.send(encodeRequest({ kind: 'piece', id: 1, digest: held, index: 0, length: LARGE }));
      await settle();
    }
    all.far.send(encodeRequest({ kind: 'piece', id: 7, digest: held, index: 0, length: LARGE }));
    await settle();
    assert.equal(all.slots.used, 2 - Number(what === 'read'));
    all.far.send(encodeRequest({ kind: 'cancel', id: 7 }));
    await settle();
    blobs.open.resolve(undefined);
    await all.clock.advance(10_000);
    assert.deepEqual(
      answersOf(all.near).map(({ id, status }) => [id, status]),
      [[7, 'busy']],
    );
    assert.equal(all.slots.used, 0);
  }
});

test('an upload limit lets the first byte out at once and shares what follows evenly', async () => {
  const bytes_per_second = 2 * 1024 * 1024;
  const all = server({ slots: 16, bytes_per_second });
  const held = all.blobs.put(randomBytes(PIECE_BYTES));
  const streams = ['a', 'b', 'c'].map((id) => all.join(id));
  for (const [, far] of streams) {
    far.send(encodeRequest({ kind: 'piece', id: 1, digest: held, index: 0, length: PIECE_BYTES }));
  }
  await all.clock.advance(100);
  const sent = () => streams.map(([near]) => near.sent.reduce((sum, part) => sum + part.length, 0));
  for (const bytes of sent()) assert.ok(bytes > 16, 'no byte in a tenth of a second');
  await all.clock.advance(2900);
  const total = sent().reduce((sum, bytes) => sum + bytes, 0);
  // Three seconds, the burst of a tenth, and a slice for each.
  assert.ok(total <= 3.2 * bytes_per_second + 64 * 1024, `${total} bytes in 3 s`);
  assert.ok(total >= 2.8 * bytes_per_second, `${total} bytes in 3 s`);
  for (const bytes of sent()) assert.ok(bytes > 0.9 * (total / 3), sent().join(' '));
});

test('lists and small blobs are answered while every upload slot is taken', async () => {
  const all = server();
  const held = all.blobs.put(randomBytes(LARGE));
  const small = all.blobs.put(randomBytes(64 * 1024));
  await fill(all, held);
  all.far.send(encodeRequest({ kind: 'list', id: 1, digest: held, max_pieces: 1 }));
  const ask = { kind: 'piece', id: 2, digest: small, index: 0, length: 64 * 1024 } as const;
  all.far.send(encodeRequest(ask));
  await settle(16);
  assert.deepEqual(
    answersOf(all.near).map(({ id, status }) => [id, status]),
    [
      [1, 'ok'],
      [2, 'ok'],
    ],
  );
});

test('quick answers are bounded in number and in rate, and what is beyond is told to come back', async () => {
  const blobs = new SlowBlobs();
  const all = server({ blobs });
  const held = blobs.put(randomBytes(100));
  const ask = (far: MemoryStream, id: number): boolean =>
    far.send(encodeRequest({ kind: 'piece', id, digest: held, index: 0, length: 100 }));
  for (let i = 0; i < 64; i++) ask(all.join(`peer ${i}`)[1], 1);
  await settle();
  assert.equal(all.quick.used, 64);
  ask(all.far, 7);
  await settle();
  assert.deepEqual(
    answersOf(all.near).map(({ status, retry_after_ms }) => [status, retry_after_ms]),
    [['busy', 100]],
  );
  blobs.open.resolve(undefined);
  await settle();
  assert.equal(all.quick.used, 0);
  const [near, far] = all.join('hasty');
  for (let id = 1; id <= 210; id++) {
    ask(far, id);
    if (id % 10 === 0) await settle(40);
  }
  const { busy = [], ok = [] } = Object.groupBy(answersOf(near), ({ status }) => status);
  assert.deepEqual([ok.length, busy.length], [200, 10]);
});

test('what this version does not know is answered unsupported and is nobody’s fault', async () => {
  const { near, far, errors, register } = server();
  const later = encodeRequest({ kind: 'list', id: 1, digest, max_pieces: 1 });
  const kind = later.slice();
  kind[1] = 9;
  const algorithm = later.slice();
  algorithm[2] = 7;
  const larger = encodeRequest({ kind: 'piece', id: 1, digest, index: 0, length: 2 * PIECE_BYTES });
  for (const request of [kind, algorithm, larger]) far.send(request);
  await settle();
  assert.deepEqual(
    near.sent.map((answer) => [answer[1], answer[2]]),
    [
      [9, 4],
      [2, 4],
      [1, 4],
    ],
  );
  assert.deepEqual([near.status, errors], ['open', []]);
  const labels = { kind: 'unknown', status: 'unsupported' };
  assert.equal(register.value('swarm_requests_served_total', labels), 3);
});
