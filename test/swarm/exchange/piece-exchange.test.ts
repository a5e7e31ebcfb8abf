import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { type DaemonError, hasCode } from '../../../src/base/errors.ts';
import { digestOf } from '../../../src/oci/digest.ts';
import { PIECE_BYTES } from '../../../src/piece/layout.ts';
import { createSwarmMetrics } from '../../../src/swarm/metrics.ts';
import { PieceClient } from '../../../src/swarm/exchange/piece-client.ts';
import {
  decodeRequest,
  decodeResponse,
  encodeRequest,
  encodeResponse,
} from '../../../src/swarm/exchange/piece-protocol.ts';
import { PieceBuffers } from '../../../src/swarm/exchange/piece-buffers.ts';
import { PieceServer } from '../../../src/swarm/exchange/piece-server.ts';
import { TokenBucket } from '../../../src/swarm/ground/token-bucket.ts';
import { UploadSlots } from '../../../src/swarm/exchange/upload-slots.ts';
import { FakeClock, settle } from '../../fakes/fake-clock.ts';
import { MemoryLogger } from '../../fakes/memory-logger.ts';
import { MemoryRegister } from '../../fakes/memory-register.ts';
import { MemoryStream } from '../memory-stream.ts';
import { MemoryBlobs } from '../swarm-host.ts';

const { signal } = new AbortController();
const digest = digestOf(Buffer.from('blob'));

function client() {
  const [near, far] = MemoryStream.pair();
  const errors: DaemonError[] = [];
  let opened = 0;
  const pieces = new PieceClient({
    clock: new FakeClock(),
    buffers: new PieceBuffers(),
    open: () => {
      opened += 1;
      return Promise.resolve(near.stream);
    },
    events: {
      onReceived: () => undefined,
      onBytes: () => undefined,
      onProtocolError: (error) => void errors.push(error),
    },
  });
  return { pieces, near, far, errors, opened: () => opened };
}

function server(config: { slots?: number } = {}) {
  const clock = new FakeClock();
  const blobs = new MemoryBlobs();
  const [near, far] = MemoryStream.pair();
  const slots = new UploadSlots({ slots: config.slots ?? 2, max_waiting: 2 });
  const errors: DaemonError[] = [];
  const metrics = createSwarmMetrics(new MemoryRegister(), { peers: () => 0, announced: () => 0 });
  const bucket = new TokenBucket(clock, { per_second: 0, burst: 0 });
  new PieceServer({
    store: blobs,
    slots,
    bucket,
    clock,
    metrics,
    logger: new MemoryLogger(),
  }).serve(near.stream, {
    onSent: () => undefined,
    onProtocolError: (error) => void errors.push(error),
  });
  return { clock, blobs, near, far, slots, errors };
}

const lies = [
  {
    id: 'a longer piece than asked for',
    frame: { kind: 'piece', status: 'ok', id: 1, length: 1001 },
  },
  {
    id: 'a shorter piece than asked for',
    frame: { kind: 'piece', status: 'ok', id: 1, length: 999 },
  },
  {
    id: 'an answer to what was not asked',
    frame: { kind: 'piece', status: 'ok', id: 7, length: 1000 },
  },
  { id: 'a list for a piece', frame: { kind: 'list', status: 'ok', id: 1, length: 40 } },
  {
    id: 'a length of gigabytes',
    frame: { kind: 'piece', status: 'ok', id: 1, length: 0xffffffff },
  },
] as const;
for (const { id, frame } of lies) {
  test(`${id} breaks the protocol before a byte is allocated for it`, async () => {
    const { pieces, near, far, errors } = client();
    const fetch = pieces.piece({ digest, index: 0, length: 1000 }, { signal });
    const rejected = assert.rejects(fetch, (e) => hasCode(e, 'protocol_error'));
    await settle();
    far.send(encodeResponse(frame));
    await rejected;
    assert.equal(errors.length, 1);
    assert.equal(near.status, 'aborted');
  });
}

test('an abandoned request is cancelled, its late bytes are thrown away, and the next answer is whole', async () => {
  const { pieces, far, near } = client();
  const quit = new AbortController();
  const first = pieces.piece({ digest, index: 0, length: 1000 }, { signal: quit.signal });
  const second = pieces.piece({ digest, index: 1, length: 1000 }, { signal });
  const rejected = assert.rejects(first, /gave up/);
  await settle();
  quit.abort(new Error('gave up'));
  await rejected;
  assert.deepEqual(
    near.sent.map((frame) => decodeRequest(frame).kind),
    ['piece', 'piece', 'cancel'],
  );
  const body = randomBytes(1000);
  far.send(encodeResponse({ kind: 'piece', status: 'ok', id: 1, length: 1000 }));
  far.send(randomBytes(1000));
  far.send(encodeResponse({ kind: 'piece', status: 'ok', id: 2, length: 1000 }));
  far.send(body.subarray(0, 300));
  far.send(body.subarray(300));
  assert.ok(body.equals(await second));
});

test('a lost stream fails everything outstanding at once and the next request opens another', async () => {
  const { pieces, far, opened } = client();
  const fetches = [0, 1].map((index) => pieces.piece({ digest, index, length: 10 }, { signal }));
  const outcomes = Promise.allSettled(fetches);
  await settle();
  far.abort(new Error('cut'));
  for (const o of await outcomes)
    assert.ok(o.status === 'rejected' && hasCode(o.reason, 'internal'));
  pieces.piece({ digest, index: 0, length: 10 }, { signal }).catch(() => undefined);
  await settle();
  assert.equal(opened(), 2);
});

test('the number of requests that wait for one peer is bounded', async () => {
  const { pieces } = client();
  const fetches = Array.from({ length: 16 }, (_, index) =>
    pieces.piece({ digest, index, length: 10 }, { signal }),
  );
  for (const f of fetches) f.catch(() => undefined);
  await settle();
  await assert.rejects(pieces.piece({ digest, index: 99, length: 10 }, { signal }), (e) =>
    hasCode(e, 'unavailable'),
  );
});

test('a piece leaves in parts of at most 1 MiB, each after the drain of the one before', async () => {
  const { blobs, near, far, slots } = server();
  const bytes = randomBytes(PIECE_BYTES);
  const held = blobs.put(bytes);
  near.holds = true;
  far.send(encodeRequest({ kind: 'piece', id: 1, digest: held, index: 0, length: PIECE_BYTES }));
  for (let parts = 1; parts <= 5; parts++) {
    await settle();
    assert.equal(near.sent.length, parts);
    assert.equal(slots.used, 1);
    near.drain();
  }
  await settle();
  assert.equal(slots.used, 0);
  assert.ok(near.sent.every((part) => part.length <= 1024 * 1024));
  assert.ok(Buffer.concat(near.sent.slice(1)).equals(bytes));
});

for (const how of ['vanishes', 'reads nothing for ten seconds'] as const) {
  test(`a receiver that ${how} frees its upload slot`, async () => {
    const { blobs, near, far, slots, clock } = server();
    const held = blobs.put(randomBytes(100));
    near.holds = true;
    far.send(encodeRequest({ kind: 'piece', id: 1, digest: held, index: 0, length: 100 }));
    await settle();
    assert.equal(slots.used, 1);
    if (how === 'vanishes') far.abort(new Error('gone'));
    else await clock.advance(10_000);
    await settle();
    assert.equal(slots.used, 0);
    assert.notEqual(near.status, 'open');
  });
}

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
  const answers = near.sent
    .filter((part) => part.length === 16)
    .map((part) => decodeResponse(part));
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
