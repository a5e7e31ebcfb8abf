import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { DaemonError } from '../../src/base/errors.ts';
import { PIECE_BYTES } from '../../src/piece/layout.ts';
import { blobOf, PullBench } from './pull-bench.ts';

describe('a pull', () => {
  it('brings the whole blob from one source', async () => {
    await using b = new PullBench();
    const blob = blobOf(3.5);
    const source = b.source(blob);
    assert.equal((await b.pull(blob)).prefix, -1);
    assert.equal(Buffer.compare(b.store.blobs.get(blob.digest)!.bytes, blob.bytes), 0);
    assert.deepEqual(source.requests.toSorted(), [0, 1, 2, 3]);
    assert.deepEqual(source.blames, []);
    assert.equal(source.peak_in_flight <= source.depth, true);
    assert.equal(b.register.value('pull_bytes_total', { source: 'peer' }), blob.bytes.length);
    assert.equal(b.register.value('pull_sessions_total', { outcome: 'complete' }), 1);
    assert.equal(b.logger.lines.filter((l) => l.level === 'info').length, 1);
  });

  it('needs no piece list for a blob of one piece', async () => {
    await using b = new PullBench();
    const blob = blobOf(0.3);
    const source = b.source(blob);
    assert.equal((await b.pull(blob)).prefix, -1);
    assert.equal(source.lists_asked, 0);
  });

  it('shares the pieces over two sources', async () => {
    await using b = new PullBench();
    const blob = blobOf(8);
    const [x, y] = [b.source(blob, { id: 'x' }), b.source(blob, { id: 'y' })];
    assert.equal((await b.pull(blob)).prefix, -1);
    assert.equal(x.requests.length >= 3 && y.requests.length >= 3, true);
    assert.equal(x.requests.length + y.requests.length, 8);
  });

  it('asks near sources before far ones', async () => {
    await using b = new PullBench();
    const blob = blobOf(2);
    const far = b.source(blob, { id: 'far' });
    b.source(blob, { id: 'near', near: true });
    assert.equal((await b.pull(blob)).prefix, -1);
    assert.deepEqual(far.requests, []);
  });

  it('gives the contiguous prefix when the only source dies half way', async () => {
    await using b = new PullBench();
    const blob = blobOf(4);
    const source = b.source(blob, { depth: 1, act: (i) => (i < 2 ? 'serve' : 'gone') });
    const { prefix, ms } = await b.pull(blob);
    assert.equal(prefix, 2 * PIECE_BYTES);
    assert.equal(ms < 200, true);
    assert.deepEqual(source.blames, ['gone']);
  });

  it('goes on with another source when one dies, and fetches only what was in flight again', async () => {
    await using b = new PullBench();
    const blob = blobOf(8);
    const dying = b.source(blob, { id: 'x', act: (_, nth) => (nth < 2 ? 'serve' : 'gone') });
    const other = b.source(blob, { id: 'y' });
    assert.equal((await b.pull(blob)).prefix, -1);
    assert.equal(dying.requests.length + other.requests.length <= 8 + dying.depth, true);
  });

  it('is a miss that costs nothing when nobody has the blob', async () => {
    await using b = new PullBench();
    assert.equal(b.tryJoin(blobOf(2)), undefined);
    assert.equal(b.clock.pending, 0);
    assert.deepEqual(b.pulls.status(), []);
  });

  it('is complete at once when the store has the blob', async () => {
    await using b = new PullBench();
    const blob = blobOf(1);
    b.store.put(blob.bytes);
    assert.equal((await b.pull(blob)).prefix, -1);
    assert.equal(b.finder.finds, 0);
  });

  it('is a miss for a size that is not the blob\u2019s', async () => {
    await using b = new PullBench();
    const blob = blobOf(1);
    b.store.put(blob.bytes);
    assert.equal(b.pulls.join({ digest: blob.digest, size_bytes: 5, small: false }), undefined);
    const other = blobOf(2, 9);
    b.source(other);
    assert.equal(b.pulls.join({ digest: other.digest, size_bytes: 0, small: false }), undefined);
  });

  it('takes in sources that appear while it runs', async () => {
    await using b = new PullBench();
    const blob = blobOf(6);
    b.source(blob, { id: 'x', depth: 1, bytes_per_second: PIECE_BYTES });
    const ticket = b.join(blob);
    await b.clock.advance(100);
    const late = b.hidden(blob, { id: 'y' });
    b.finder.add(blob.digest, late);
    b.pulls.sourcesChanged(blob.digest);
    const { value, ms } = await b.outcome(ticket);
    ticket.release();
    assert.equal(value.kind, 'complete');
    assert.equal(late.requests.length >= 4, true);
    assert.equal(ms < 1500, true);
  });

  it('asks the finder again by itself', async () => {
    await using b = new PullBench();
    const blob = blobOf(6);
    b.source(blob, { id: 'x', depth: 1, bytes_per_second: PIECE_BYTES / 2 });
    const ticket = b.join(blob);
    await b.clock.advance(100);
    const late = b.hidden(blob, { id: 'y' });
    b.finder.add(blob.digest, late);
    await b.outcome(ticket);
    ticket.release();
    assert.equal(late.requests.length >= 3, true);
  });

  it('waits for a busy source that gets free', async () => {
    await using b = new PullBench();
    const blob = blobOf(1);
    const source = b.source(blob, { act: (_, nth) => (nth < 3 ? 'busy' : 'serve') });
    const { prefix, ms } = await b.pull(blob);
    assert.equal(prefix, -1);
    assert.equal(ms < 2000, true);
    assert.deepEqual(source.blames, ['busy', 'busy', 'busy']);
  });

  it('settles after the busy wait when everybody stays busy', async () => {
    await using b = new PullBench();
    const blob = blobOf(2);
    b.source(blob, { id: 'x', act: () => 'busy' });
    const y = b.source(blob, { id: 'y', act: () => 'busy', list: 'busy' });
    const { prefix, ms } = await b.pull(blob);
    assert.equal(prefix, 0);
    assert.equal(ms >= 2000 && ms < 2300, true, `${ms}`);
    assert.equal(y.requests.length < 8, true);
  });

  it('never holds more pieces in flight than configured, over all blobs', async () => {
    await using b = new PullBench({ pieces_in_flight_max: 3 });
    const blobs = [blobOf(4, 1), blobOf(4, 2), blobOf(3.5, 3)];
    for (const blob of blobs) {
      for (const id of ['x', 'y', 'z']) b.source(blob, { id, depth: 4 });
    }
    const done = await b.drive(
      Promise.all(
        blobs.map((blob) => {
          const ticket = b.join(blob);
          return ticket.settled(new AbortController().signal).finally(() => ticket.release());
        }),
      ),
    );
    assert.deepEqual(
      done.value.map((o) => o.kind),
      ['complete', 'complete', 'complete'],
    );
    assert.equal(b.traffic.peak_bytes, 3 * PIECE_BYTES);
  });

  it('keeps to the depth of a source over all blobs', async () => {
    await using b = new PullBench();
    const blobs = [blobOf(3, 1), blobOf(3, 2)];
    const sources = blobs.map((blob) => b.source(blob, { id: 'x', depth: 2 }));
    let peak = 0;
    const tickets = blobs.map((blob) => b.join(blob));
    const all = Promise.all(tickets.map((t) => t.settled(new AbortController().signal)));
    for (let i = 0; i < 40; i++) {
      await b.clock.advance(1);
      peak = Math.max(
        peak,
        sources.reduce((n, s) => n + s.in_flight, 0),
      );
    }
    await b.drive(all);
    for (const t of tickets) t.release();
    assert.equal(peak, 2);
  });

  it('settles with what is contiguous when the disk is full', async () => {
    await using b = new PullBench();
    const blob = blobOf(3);
    b.source(blob, { depth: 1, latency_ms: 50 });
    const ticket = b.join(blob);
    await b.clock.advance(120);
    b.store.full = true;
    const { value } = await b.outcome(ticket);
    assert.equal(value.kind === 'prefix' && value.staged.prefix_bytes, PIECE_BYTES);
    ticket.release();
  });

  it('settles with nothing when the blob cannot be published', async () => {
    await using b = new PullBench();
    const blob = blobOf(2);
    const source = b.source(blob);
    const stage = b.store.stage.bind(b.store);
    b.store.stage = async (digest, size_bytes) => {
      const staged = await stage(digest, size_bytes);
      staged.publish = () => Promise.reject(new DaemonError('resource_exhausted', 'no space left'));
      return staged;
    };
    assert.equal((await b.pull(blob)).prefix, 0);
    assert.deepEqual(source.blames, []);
  });

  it('is complete when the blob was committed otherwise before its list was here', async () => {
    await using b = new PullBench();
    const blob = blobOf(2);
    b.source(blob, { latency_ms: 50 });
    const ticket = b.join(blob);
    await b.clock.advance(10);
    b.store.put(blob.bytes);
    assert.equal((await b.outcome(ticket)).value.kind, 'complete');
    ticket.release();
  });

  it('settles with nothing when there is no room to stage', async () => {
    await using b = new PullBench();
    const blob = blobOf(2);
    b.source(blob);
    b.store.full = true;
    assert.equal((await b.pull(blob)).prefix, 0);
  });
});

describe('a small target', () => {
  it('comes whole in one round trip', async () => {
    await using b = new PullBench();
    const blob = blobOf(0.01);
    b.source(blob, { latency_ms: 20 });
    const { prefix, ms } = await b.pull(blob, true);
    assert.equal(prefix, -1);
    assert.equal(ms < 100, true);
  });

  it('races two holders', async () => {
    await using b = new PullBench();
    const blob = blobOf(0.01);
    b.source(blob, { id: 'x', act: () => 'silent' });
    b.source(blob, { id: 'y', act: () => 'serve' });
    const { prefix, ms } = await b.pull(blob, true);
    assert.equal(prefix, -1);
    assert.equal(ms < 100, true);
  });

  it('settles with nothing after its wait, and its session ends', async () => {
    await using b = new PullBench();
    const blob = blobOf(0.01);
    const source = b.source(blob, { act: () => 'silent' });
    const { prefix, ms } = await b.pull(blob, true);
    assert.equal(prefix, 0);
    assert.equal(ms <= 100, true, `${ms}`);
    await b.clock.advance(0);
    assert.deepEqual(b.pulls.status(), []);
    assert.equal(source.in_flight, 0);
  });
});
