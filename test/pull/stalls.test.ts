import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { PIECE_BYTES } from '../../src/piece/layout.ts';
import { blobOf, PullBench } from './pull-bench.ts';

describe('stalls', () => {
  it('a silent source is hedged within a second and pays when it loses', async () => {
    await using b = new PullBench();
    const blob = blobOf(20);
    const silent = b.source(blob, { id: 'x', act: () => 'silent' });
    const other = b.source(blob, { id: 'y', depth: 4, bytes_per_second: 3 * PIECE_BYTES });
    const ticket = b.join(blob);
    await b.clock.advance(900);
    const owed = silent.requests.filter((i) => !other.requests.includes(i));
    assert.equal(owed.length, 2);
    await b.clock.advance(400); // the deadline, and the next free place at the other source
    assert.deepEqual(
      owed.filter((i) => other.requests.includes(i)),
      owed,
    );
    const { value, ms } = await b.outcome(ticket);
    ticket.release();
    assert.equal(value.kind, 'complete');
    assert.equal(ms <= 1000, true, `${ms}`);
    assert.deepEqual(silent.blames, ['stalled']);
    assert.equal(silent.in_flight, 0);
    assert.equal(b.register.value('pull_hedges_total', { reason: 'hedge' }) >= 1, true);
  });

  it('one of three holders that falls silent in mid pull costs a second at most, and no other pull that comes after', async () => {
    await using b = new PullBench();
    const [blob, next] = [blobOf(60, 1), blobOf(30, 2)];
    const script = { bytes_per_second: 5 * PIECE_BYTES };
    const act = (_: number, nth: number): 'serve' | 'silent' => (nth < 8 ? 'serve' : 'silent');
    for (const id of ['x', 'y']) b.source(blob, { ...script, id });
    b.source(blob, { ...script, id: 'z', act });
    const { prefix, ms } = await b.pull(blob);
    assert.equal(prefix, -1);
    assert.equal(ms < 7000, true, `${ms} ms, 6000 with two holders only`);
    for (const id of ['x', 'y']) b.source(next, { ...script, id });
    const silent = b.source(next, { ...script, id: 'z', act: () => 'silent' });
    assert.equal((await b.pull(next)).prefix, -1);
    assert.deepEqual(silent.requests, []);
  });

  it('a source that ignores its signal holds no slot', async () => {
    await using b = new PullBench({ pieces_in_flight_max: 2 });
    const blob = blobOf(4);
    b.source(blob, { id: 'x', act: () => 'deaf', near: true });
    b.source(blob, { id: 'y' });
    const { prefix, ms } = await b.pull(blob);
    assert.equal(prefix, -1);
    assert.equal(ms <= 1300, true, `${ms}`);
  });

  it('a half-dead source (1 KB/s) loses its piece within 3 s', async () => {
    await using b = new PullBench();
    const blob = blobOf(4);
    const slow = b.source(blob, { id: 'x', act: () => 'drip' });
    b.source(blob, { id: 'y' });
    const { prefix, ms } = await b.pull(blob);
    assert.equal(prefix, -1);
    assert.equal(ms <= 3000, true, `${ms}`);
    assert.equal(slow.in_flight, 0);
  });

  it('a lone silent source is given up after a second', async () => {
    await using b = new PullBench();
    const blob = blobOf(3);
    const source = b.source(blob, { depth: 1, act: (i) => (i === 0 ? 'serve' : 'silent') });
    const { prefix, ms } = await b.pull(blob);
    assert.equal(prefix, PIECE_BYTES);
    assert.equal(ms <= 1200, true, `${ms}`);
    assert.deepEqual(source.blames, ['stalled']);
  });

  it('two sources that are silent on the same piece are given up as soon as both are', async () => {
    await using b = new PullBench();
    const blob = blobOf(6);
    for (const id of ['x', 'y']) b.source(blob, { id, act: (i) => (i === 3 ? 'silent' : 'serve') });
    const { prefix, ms } = await b.pull(blob);
    assert.equal(prefix, 3 * PIECE_BYTES);
    assert.equal(ms <= 2500, true, `${ms}`);
  });

  it('a lone half-dead source is given up when nothing worthwhile came for no_progress_ms', async () => {
    await using b = new PullBench();
    const blob = blobOf(2);
    b.source(blob, { act: () => 'drip', depth: 1 });
    const { prefix, ms } = await b.pull(blob);
    assert.equal(prefix, 0);
    assert.equal(ms >= 9000 && ms <= 12_000, true, `${ms}`);
  });

  it('a slow source is still used when it is the only one', async () => {
    await using b = new PullBench({
      min_bytes_per_second: 2 * PIECE_BYTES,
      no_progress_ms: 60_000,
    });
    const blob = blobOf(2);
    b.source(blob, { depth: 1, bytes_per_second: PIECE_BYTES / 4 });
    assert.equal((await b.pull(blob)).prefix, -1);
  });

  it('an idle fast source duplicates the slowest last piece, and the loser is not blamed', async () => {
    await using b = new PullBench();
    const blob = blobOf(8);
    const tardy = b.source(blob, { id: 'x', depth: 1, bytes_per_second: PIECE_BYTES / 5 });
    b.source(blob, { id: 'y', depth: 2, latency_ms: 20 });
    const { prefix, ms } = await b.pull(blob);
    assert.equal(prefix, -1);
    assert.equal(ms < 1500, true, `${ms}`);
    assert.deepEqual(tardy.blames, []);
    assert.equal(b.register.value('pull_hedges_total', { reason: 'endgame' }) >= 1, true);
  });

  it('a last piece that only queues at a slow source is moved to an idle one, not asked for twice', async () => {
    await using b = new PullBench();
    const blob = blobOf(8);
    const asked = new Map<number, AbortSignal>();
    const twice: number[] = [];
    const tardy = b.source(blob, { id: 'x', depth: 2 });
    // Sends one piece after the other, a piece in 4 s.
    let free_ms = 0;
    tardy.fetch = async (index, length, { signal, onProgress }) => {
      tardy.requests.push(index);
      const begin_ms = Math.max(free_ms, b.clock.now_ms());
      free_ms = begin_ms + 4000;
      asked.set(index, signal);
      await b.clock.sleep(begin_ms - b.clock.now_ms(), { signal });
      for (let i = 1; i <= 40; i++) {
        await b.clock.sleep(100, { signal });
        tardy.standing.heard(length / 40);
        onProgress?.((length * i) / 40);
      }
      const at = index * PIECE_BYTES;
      return { index, bytes: blob.bytes.slice(at, at + length) };
    };
    const act = (index: number): 'serve' => {
      if (asked.get(index)?.aborted === false) twice.push(index);
      return 'serve';
    };
    b.source(blob, { id: 'y', depth: 2, latency_ms: 100, act });
    const { prefix, ms } = await b.pull(blob);
    assert.equal(prefix, -1);
    assert.equal(ms < 2500, true, `${ms}`);
    assert.equal(asked.size, 2);
    assert.equal(twice.length, 1, 'the one that was under way already');
  });

  it('a request that waits behind another at the same source does not count as silent', async () => {
    await using b = new PullBench();
    const blob = blobOf(2);
    // The second request gets its first byte after 1.6 s, while the first is arriving all the time.
    let free_ms = 0;
    const source = b.source(blob, { depth: 2, latency_ms: 0 });
    source.fetch = async (index, length, { signal, onProgress }) => {
      const begin = Math.max(free_ms, b.clock.now_ms());
      free_ms = begin + 1600;
      await b.clock.sleep(begin - b.clock.now_ms(), { signal });
      for (let i = 1; i <= 16; i++) {
        await b.clock.sleep(100, { signal });
        source.standing.heard(length / 16);
        onProgress?.((length * i) / 16);
      }
      const at = index * PIECE_BYTES;
      return { index, bytes: blob.bytes.slice(at, at + length) };
    };
    assert.equal((await b.pull(blob)).prefix, -1);
    assert.deepEqual(source.blames, []);
    assert.equal(b.register.value('pull_stalls_total', { kind: 'silent' }), 0);
  });

  it('a blob that queues behind a large one at the only source waits for its turn', async () => {
    await using b = new PullBench();
    const [large, queued] = [blobOf(30, 1), blobOf(2, 2)];
    for (const blob of [large, queued]) {
      b.source(blob, { id: 'x', depth: 1, bytes_per_second: 2 * PIECE_BYTES });
    }
    const tickets = [b.join(large), b.join(queued)];
    for (const ticket of tickets) {
      assert.equal((await b.outcome(ticket)).value.kind, 'complete');
      ticket.release();
    }
  });

  it('a blob that queues behind a half-dead one is given up as well', async () => {
    await using b = new PullBench();
    const [large, queued] = [blobOf(30, 1), blobOf(2, 2)];
    for (const blob of [large, queued]) {
      b.source(blob, { id: 'x', depth: 1, act: () => 'drip' });
    }
    const tickets = [b.join(large), b.join(queued)];
    for (const ticket of tickets) {
      const { value, ms } = await b.outcome(ticket);
      assert.equal(value.kind, 'prefix');
      assert.equal(ms <= 12_000, true, `${ms}`);
      ticket.release();
    }
  });
});
