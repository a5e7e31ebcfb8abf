import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { isDeepStrictEqual } from 'node:util';
import { hasCode } from '../../../src/base/errors.ts';
import { digestOf } from '../../../src/oci/digest.ts';
import { PIECE_BYTES } from '../../../src/piece/layout.ts';
import { PieceBuffers } from '../../../src/swarm/exchange/piece-buffers.ts';
import { PieceClient } from '../../../src/swarm/exchange/piece-client.ts';
import { decodeRequest, encodeResponse } from '../../../src/swarm/exchange/piece-protocol.ts';
import { FakeClock, settle } from '../../fakes/fake-clock.ts';
import { MemoryStream } from '../memory-stream.ts';
import { client, LARGE } from './one-end.ts';

const { signal } = new AbortController();
const digest = digestOf(Buffer.from('blob'));

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

test('small requests go on a stream of their own, beside the one for pieces', async () => {
  const { pieces, pairs } = client();
  const asked = [
    pieces.piece({ digest, index: 0, length: LARGE }, { signal, patience_ms: 1000 }),
    pieces.list(digest, { max_pieces: 4, signal }),
    pieces.piece({ digest, index: 0, length: 64 * 1024 }, { signal }),
  ];
  for (const one of asked) one.catch(() => undefined);
  await settle();
  assert.deepEqual(
    pairs.map(([near]) => near.sent.map((frame) => decodeRequest(frame).kind)),
    [['piece'], ['list', 'piece']],
  );
  const [bulk] = pairs[0]![0].sent.map((frame) => decodeRequest(frame));
  assert.equal(bulk?.kind === 'piece' && bulk.patience_ms, 1000);
});

test('busy carries the time to come back after, and nothing when the peer did not say', async () => {
  for (const { retry_after_ms, facts } of [
    { retry_after_ms: 750, facts: { retry_after_ms: 750 } },
    { retry_after_ms: 0xffffffff, facts: { retry_after_ms: 60_000 } },
    { retry_after_ms: 0, facts: {} },
  ]) {
    const { pieces, far } = client();
    const fetch = pieces.piece({ digest, index: 0, length: LARGE }, { signal });
    const rejected = assert.rejects(
      fetch,
      (e) => hasCode(e, 'unavailable') && isDeepStrictEqual(e.facts, facts),
    );
    await settle();
    far.send(encodeResponse({ kind: 'piece', status: 'busy', id: 1, length: 0, retry_after_ms }));
    await rejected;
  }
});

test('a stream that is closed while it opens fails its request at once', async () => {
  for (const when of ['before it is handed over', 'in the same turn'] as const) {
    const [near] = MemoryStream.pair();
    const pieces = new PieceClient({
      clock: new FakeClock(),
      buffers: new PieceBuffers(),
      open: () => {
        if (when === 'before it is handed over') near.abort(new Error('cut'));
        else queueMicrotask(() => near.abort(new Error('cut')));
        return Promise.resolve(near.stream);
      },
      events: {
        onReceived: () => undefined,
        onBytes: () => undefined,
        onProtocolError: () => undefined,
      },
    });
    let ended = false;
    const fetch = pieces.piece({ digest, index: 0, length: LARGE }, { signal });
    fetch.catch((error: unknown) => {
      ended = hasCode(error, 'internal');
    });
    await settle();
    assert.ok(ended, `the request waits for nothing: ${when}`);
  }
});

test('a large answer that nobody wants any more is given up with its stream, and what else was asked is asked again', async () => {
  const { pieces, pairs, errors } = client();
  const quit = new AbortController();
  const first = pieces.piece({ digest, index: 0, length: PIECE_BYTES }, { signal: quit.signal });
  const second = pieces.piece({ digest, index: 1, length: 1_000_000 }, { signal });
  const rejected = assert.rejects(first, /gave up/);
  await settle();
  const [, far] = pairs[0]!;
  far.send(encodeResponse({ kind: 'piece', status: 'ok', id: 1, length: PIECE_BYTES }));
  far.send(randomBytes(1000));
  await settle();
  quit.abort(new Error('gave up'));
  await rejected;
  await settle();
  assert.notEqual(far.status, 'open', 'the peer sends on');
  const [near, again] = pairs[1]!;
  assert.deepEqual(
    near.sent.map((frame) => decodeRequest(frame).id),
    [2],
  );
  const body = randomBytes(1_000_000);
  again.send(encodeResponse({ kind: 'piece', status: 'ok', id: 2, length: body.length }));
  again.send(body);
  assert.ok(body.equals(await second));
  assert.deepEqual(errors, []);
});

test('an answer in the last bytes of a stream that was given up is not taken for the one on the new stream', async () => {
  const { pieces, pairs, errors } = client();
  const quit = new AbortController();
  let seen = 0;
  const first = pieces.piece(
    { digest, index: 0, length: PIECE_BYTES },
    {
      signal: quit.signal,
      onProgress: (received) => {
        seen = received;
        quit.abort(new Error('gave up'));
      },
    },
  );
  const second = pieces.piece({ digest, index: 1, length: LARGE }, { signal });
  const rejected = assert.rejects(first, /gave up/);
  await settle();
  const [, far] = pairs[0]!;
  const body = randomBytes(LARGE);
  const answer = encodeResponse({ kind: 'piece', status: 'ok', id: 2, length: LARGE });
  far.send(encodeResponse({ kind: 'piece', status: 'ok', id: 1, length: PIECE_BYTES }));
  far.send(randomBytes(1000));
  // On its way when the stream is given up.
  far.send(Buffer.concat([randomBytes(PIECE_BYTES - 1000), answer, body]));
  await rejected;
  assert.equal(seen, 1000);
  await settle();
  const [, again] = pairs[1]!;
  again.send(answer);
  again.send(body);
  assert.ok(body.equals(await second));
  assert.deepEqual(errors, []);
});
