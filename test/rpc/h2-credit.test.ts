import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FLAG, FRAME } from '../../src/rpc/h2/frames.ts';
import { Bench } from '../contract/server-suite.ts';
import { FakeClock } from '../fakes/fake-clock.ts';
import { METHODS } from './echo-service.ts';
import { grpcMessage } from './raw-peer.ts';
import { SendingPeer } from './sending-peer.ts';

const MIB = 1024 * 1024;
const TALK = METHODS.talk.path;
/** Over all calls of a server: what may lie there for messages that did not fit their own small windows. */
const SHARED_BYTES = 65 * MIB;
/** A call's own window. */
const OWN_BYTES = 65_535;

function message(text: string, bytes: number): Buffer {
  return grpcMessage(METHODS.talk.encodeRequest({ text, data: Buffer.alloc(bytes) }));
}

/** Ids of `count` streams, opened. */
function opened(peer: SendingPeer, count: number): number[] {
  const ids = Array.from({ length: count }, (_, n) => 2 * n + 1);
  for (const id of ids) peer.open(id, TALK);
  return ids;
}

async function assertOk(peer: SendingPeer, ids: readonly number[]): Promise<void> {
  for (const id of ids) {
    assert.match((await peer.peer.trailers(id)) ?? 'none', /grpc-status\x010/, `stream ${id}`);
  }
}

test('h2: 200 calls with 1 MiB each at a slow handler all end well, with bounded memory meanwhile', async () => {
  await using bench = await Bench.start('h2');
  using peer = new SendingPeer(bench.path);
  const ids = opened(peer, 200);
  for (const id of ids) peer.put(id, message('gate', MIB), { end: true });
  await peer.blocked();
  assert.ok(peer.sent <= SHARED_BYTES + ids.length * OWN_BYTES, `${peer.sent} bytes held`);
  assert.ok(bench.echo.hanging.length >= 32, `${bench.echo.hanging.length} handlers at work`);
  bench.echo.gate.resolve(undefined);
  await assertOk(peer, ids);
});

test('h2: twelve messages of 16 MiB at once all arrive, two at a time', async () => {
  await using bench = await Bench.start('h2');
  using peer = new SendingPeer(bench.path);
  const ids = opened(peer, 12);
  for (const id of ids) peer.put(id, message('gate', 16 * MIB), { end: true });
  await peer.blocked();
  assert.equal(bench.echo.hanging.length, 2);
  assert.ok(peer.sent <= SHARED_BYTES + ids.length * OWN_BYTES, `${peer.sent} bytes held`);
  bench.echo.gate.resolve(undefined);
  await assertOk(peer, ids);
});

test('h2: a message that stays unfinished is given up after 20 s in which others wait, and only then', async () => {
  const clock = new FakeClock();
  await using bench = await Bench.start('h2', clock);
  using stalled = new SendingPeer(bench.path);
  const half = message('swallow', 16 * MIB).subarray(0, 15 * MIB);
  for (const id of opened(stalled, 2)) stalled.put(id, half);
  await stalled.blocked();
  assert.equal(stalled.waiting(1) + stalled.waiting(3), 0);
  await clock.advance(3_600_000);
  await stalled.heard();
  assert.equal(
    stalled.peer.frames.find(({ type }) => type === FRAME.rst_stream),
    undefined,
  );

  using honest = new SendingPeer(bench.path);
  honest.open(1, TALK).put(1, message('swallow', 16 * MIB), { end: true });
  honest.open(3, TALK).put(3, message('small', 1000), { end: true });
  await assertOk(honest, [3]);
  await honest.blocked();
  assert.ok(honest.waiting(1) > 0);
  await clock.advance(19_000);
  await honest.heard();
  assert.ok(honest.waiting(1) > 0);
  await clock.advance(2000);
  await assertOk(honest, [1]);
  for (const id of [1, 3]) {
    assert.match((await stalled.peer.trailers(id)) ?? '', /grpc-status\x014.*did not get through/);
  }
});

test('h2: one connection with many large messages does not hold up the only one of another', async () => {
  await using bench = await Bench.start('h2');
  using many = new SendingPeer(bench.path);
  const ids = opened(many, 10);
  for (const id of ids) many.put(id, message('gate', 16 * MIB), { end: true });
  await many.blocked();
  using other = new SendingPeer(bench.path);
  other.open(1, TALK).put(1, message('swallow', 16 * MIB), { end: true });
  await other.blocked();
  bench.echo.gate.resolve(undefined);
  await assertOk(other, [1]);
  const done = many.peer.frames.filter(
    ({ type, flags }) => type === FRAME.headers && (flags & FLAG.end_stream) !== 0,
  );
  assert.ok(done.length < ids.length / 2, `${done.length} came first`);
  await assertOk(many, ids);
});

test('h2: what a handler still works on counts when its call was reset', async () => {
  await using bench = await Bench.start('h2');
  using peer = new SendingPeer(bench.path);
  for (let n = 0; n < 8; n++) {
    const id = 2 * n + 1;
    peer.open(id, TALK).put(id, message('gate', 16 * MIB));
    await peer.blocked();
    peer.reset(id);
  }
  await peer.blocked();
  assert.equal(bench.echo.hanging.length, 2);
  bench.echo.gate.resolve(undefined);
  peer.open(101, TALK).put(101, message('swallow', 16 * MIB), { end: true });
  await assertOk(peer, [101]);
});
