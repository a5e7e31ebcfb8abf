import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { test } from 'node:test';
import type { Stream } from '@libp2p/interface';
import { closeOf, echo, readAll, roundTrips, startPair } from './quic-pair.ts';

const MIB = 2 ** 20;

/** Writes as fast as back-pressure allows; `written` is what the native side has taken. */
class Source {
  written = 0;
  readonly hash = createHash('sha256');
  readonly done: Promise<void>;

  constructor(stream: Stream, bytes: number, chunkBytes = MIB) {
    this.done = this.#run(stream, bytes, chunkBytes);
    this.done.catch(() => undefined);
  }

  async #run(stream: Stream, bytes: number, chunkBytes: number): Promise<void> {
    for (let at = 0; at < bytes; at += chunkBytes) {
      const chunk = randomBytes(chunkBytes);
      this.hash.update(chunk);
      const more = stream.send(chunk);
      assert.equal(more, !stream.writableNeedsDrain);
      if (!more) await stream.onDrain();
      this.written += chunkBytes;
    }
    await stream.close();
  }
}

test('bytes come back as they were sent, and both ends close cleanly', async () => {
  await using pair = await startPair();
  const { near, far } = await pair.open();
  const closed = Promise.all([closeOf(near), closeOf(far)]);
  echo(far);
  const sent = randomBytes(3 * MIB + 17);
  near.send(sent.subarray(0, 5));
  near.send(sent.subarray(5));
  await near.close();
  assert.deepEqual(await readAll(near), sent);
  for (const { error } of await closed) assert.equal(error, undefined);
  assert.deepEqual([near.status, far.status], ['closed', 'closed']);
});

test('a half-closed stream still receives', async () => {
  await using pair = await startPair();
  const { near, far } = await pair.open();
  await near.close();
  assert.deepEqual(await readAll(far), Buffer.alloc(0));
  const answer = readAll(near);
  far.send(Buffer.from('after your end'));
  await far.close();
  assert.equal((await answer).toString(), 'after your end');
});

test('send reports back-pressure and the drain event follows only when nothing is queued', async () => {
  await using pair = await startPair();
  const { near, far } = await pair.open();
  let drains = 0;
  near.addEventListener('drain', () => {
    drains++;
    assert.equal(near.writeBufferLength, 0);
  });
  assert.equal(near.send(Buffer.alloc(4 * MIB, 1)), false);
  assert.equal(near.send(Buffer.alloc(4 * MIB, 2)), false);
  assert.equal(near.writableNeedsDrain, true);
  const arrived = readAll(far);
  await near.onDrain();
  assert.equal(drains, 1);
  assert.equal(near.writableNeedsDrain, false);
  await near.close();
  assert.equal((await arrived).byteLength, 8 * MIB);
});

test('every wait for drain waits, not only the first', async () => {
  await using pair = await startPair();
  const { near, far } = await pair.open();
  const arrived = readAll(far);
  for (let n = 0; n < 5; n++) {
    assert.equal(near.send(Buffer.alloc(MIB, n)), false);
    await near.onDrain();
    assert.equal(near.writableNeedsDrain, false);
  }
  await near.close();
  assert.equal((await arrived).byteLength, 5 * MIB);
});

test('a wait for drain ends with the abort of its signal', async () => {
  await using pair = await startPair({ listener: { stream_window_bytes: 64 * 1024 } });
  const { near, far } = await pair.open();
  far.pause();
  near.send(Buffer.alloc(32 * MIB));
  const caller = new AbortController();
  const waiting = near.onDrain({ signal: caller.signal });
  caller.abort(new Error('caller left'));
  await assert.rejects(waiting, /caller left/);
  await assert.rejects(near.onDrain({ signal: caller.signal }), /caller left/);
  near.abort(new Error('done'));
  await assert.rejects(near.onDrain());
});

test('64 MiB arrive verified at a slow reader while only the windows are in flight', async () => {
  const window = MIB;
  await using pair = await startPair({ listener: { stream_window_bytes: window } });
  const { near, far } = await pair.open();
  const source = new Source(near, 64 * MIB);
  const hash = createHash('sha256');
  let received = 0;
  let mostInFlight = 0;
  let mostHeld = 0;
  for await (const chunk of far) {
    received += chunk.byteLength;
    hash.update(chunk.subarray());
    mostInFlight = Math.max(mostInFlight, source.written - received);
    // The reader lets others run before it asks for more.
    await new Promise((resolve) => setImmediate(resolve));
    mostHeld = Math.max(mostHeld, far.readBufferLength);
  }
  await source.done;
  assert.equal(received, 64 * MIB);
  assert.equal(hash.digest('hex'), source.hash.digest('hex'));
  // The peer's window, the native send buffer (10 MB), and what lies between two reads.
  assert.ok(mostInFlight <= window + 10 * MIB + MIB, `${mostInFlight} bytes in flight`);
  assert.ok(mostHeld <= 512 * 1024, `${mostHeld} bytes held`);
});

test('a paused stream stops reading, the writer stalls, and resuming delivers everything', async () => {
  const window = MIB;
  await using pair = await startPair({ listener: { stream_window_bytes: window } });
  const { near, far } = await pair.open();
  let received = 0;
  const hash = createHash('sha256');
  const complete = new Promise<void>((resolve) => {
    far.addEventListener('message', ({ data }) => {
      received += data.byteLength;
      hash.update(data.subarray());
    });
    far.addEventListener('end', () => resolve());
  });
  far.pause();
  const source = new Source(near, 64 * MIB);
  await roundTrips(pair, 100);
  const stalledAt = source.written;
  await roundTrips(pair, 100);
  assert.equal(source.written, stalledAt);
  assert.equal(received, 0);
  assert.ok(far.readBufferLength <= 256 * 1024, `${far.readBufferLength} bytes held`);
  assert.ok(stalledAt <= window + 10 * MIB + MIB, `${stalledAt} bytes taken`);
  far.resume();
  await complete;
  await source.done;
  assert.equal(received, 64 * MIB);
  assert.equal(hash.digest('hex'), source.hash.digest('hex'));
});

test('a stream nobody reads holds no more than one read and one more', async () => {
  await using pair = await startPair();
  const { near, far } = await pair.open();
  const source = new Source(near, 32 * MIB);
  await roundTrips(pair, 100);
  assert.ok(far.readBufferLength > 0);
  assert.ok(far.readBufferLength <= 512 * 1024, `${far.readBufferLength} bytes held`);
  assert.equal(far.status, 'open');
  const all = await readAll(far);
  assert.equal(all.byteLength, 32 * MIB);
  await source.done;
});

test('a reader that leaves early loses no byte to the next one', async () => {
  await using pair = await startPair();
  const { near, far } = await pair.open();
  const source = new Source(near, 8 * MIB);
  const hash = createHash('sha256');
  for await (const chunk of far) {
    hash.update(chunk.subarray());
    break;
  }
  hash.update(await readAll(far));
  await source.done;
  assert.equal(hash.digest('hex'), source.hash.digest('hex'));
});

test('a reset by the peer is an error at the reader, not an end', async () => {
  await using pair = await startPair();
  const { near, far } = await pair.open();
  far.send(Buffer.alloc(100_000));
  await far.onDrain();
  const closed = closeOf(near);
  far.abort(new Error('gone'));
  await assert.rejects(readAll(near), { name: 'StreamResetError' });
  const { error, local } = await closed;
  assert.deepEqual([error?.name, local], ['StreamResetError', false]);
  assert.equal(near.status, 'reset');
  await assert.rejects(readAll(near), { name: 'StreamResetError' });
});

test('a writer whose peer resets the stream is told so instead of waiting', async () => {
  await using pair = await startPair({ listener: { stream_window_bytes: 64 * 1024 } });
  const { near, far } = await pair.open();
  far.pause();
  const source = new Source(near, 64 * MIB);
  await roundTrips(pair, 5);
  far.abort(new Error('gone'));
  await assert.rejects(source.done, { name: 'StreamResetError' });
  assert.throws(() => near.send(Buffer.alloc(1)));
});

test('an abort ends both ends and frees the stream on both sides', async () => {
  await using pair = await startPair();
  const { near, far } = await pair.open();
  const farClosed = closeOf(far);
  near.abort(new Error('enough'));
  assert.equal(near.status, 'aborted');
  assert.equal((await farClosed).error?.name, 'StreamResetError');
  assert.equal(pair.connection.streams.length, 0);
  assert.equal(pair.listener.getConnections()[0]?.streams.length, 0);
});

test('closing the readable end drops what still comes and lets the stream end cleanly', async () => {
  await using pair = await startPair();
  const { near, far } = await pair.open();
  const closed = closeOf(near);
  await near.closeRead();
  const source = new Source(far, 16 * MIB);
  await source.done;
  await near.close();
  assert.equal((await closed).error, undefined);
});

test('200 streams at once each carry their own bytes', async () => {
  await using pair = await startPair();
  await Promise.all(
    Array.from({ length: 200 }, async () => {
      const { near, far } = await pair.open();
      echo(far);
      const sent = randomBytes(64 * 1024);
      near.send(sent);
      await near.close();
      assert.deepEqual(await readAll(near), sent);
    }),
  );
});

test('streams beyond the peer’s limit wait for their turn and none is lost', async () => {
  await using pair = await startPair({ listener: { max_inbound_streams: 4 } });
  await pair.listener.handle('/test/echo/1', echo);
  await Promise.all(
    Array.from({ length: 40 }, async (_, n) => {
      const near = await pair.connection.newStream('/test/echo/1');
      near.send(Uint8Array.of(n));
      await near.close();
      assert.deepEqual([...(await readAll(near))], [n]);
    }),
  );
});
