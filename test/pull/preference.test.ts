import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { DaemonError } from '../../src/base/errors.ts';
import { PIECE_BYTES } from '../../src/piece/layout.ts';
import { type Blob, blobOf, PullBench } from './pull-bench.ts';

/** Three sources outside the zone, idle and quick. */
function threeFar(b: PullBench, blob: Blob) {
  const script = { depth: 4, bytes_per_second: 50 * PIECE_BYTES };
  return ['f1', 'f2', 'f3'].map((id) => b.source(blob, { ...script, id }));
}

const sum = (sources: readonly { readonly requests: readonly number[] }[]): number =>
  sources.reduce((n, s) => n + s.requests.length, 0);

describe('zones', () => {
  it('a near holder gives nearly everything although three idle far ones could give it as well', async () => {
    await using b = new PullBench();
    const blob = blobOf(40);
    const near = b.source(blob, { id: 'n', near: true, bytes_per_second: 4 * PIECE_BYTES });
    const far = threeFar(b, blob);
    assert.equal((await b.pull(blob)).prefix, -1);
    assert.equal(sum(far) <= 2, true, `${sum(far)} of 40 pieces were asked of far sources`);
    assert.equal(near.requests.length >= 38, true);
  });

  it('far holders carry the pull beside a near one that is very slow', async () => {
    await using b = new PullBench();
    const blob = blobOf(40);
    b.source(blob, { id: 'n', near: true, bytes_per_second: PIECE_BYTES / 8 });
    const far = threeFar(b, blob);
    const { prefix, ms } = await b.pull(blob);
    assert.equal(prefix, -1);
    assert.equal(ms < 3000, true, `${ms}`);
    assert.equal(sum(far) >= 36, true);
  });

  it('nobody waits longer than a second for a near holder that falls silent', async () => {
    await using b = new PullBench();
    const blob = blobOf(40);
    const act = (_: number, nth: number): 'serve' | 'silent' => (nth < 10 ? 'serve' : 'silent');
    const script = { id: 'n', near: true, bytes_per_second: 20 * PIECE_BYTES };
    b.source(blob, { ...script, act });
    threeFar(b, blob);
    const { prefix, ms } = await b.pull(blob);
    assert.equal(prefix, -1);
    assert.equal(ms < 2500, true, `${ms}`);
  });

  it('a near holder that says when it is free is waited for, but not for ever', async () => {
    await using b = new PullBench();
    const blob = blobOf(20);
    const act = (_: number, nth: number): 'busy' | 'serve' => (nth < 4 ? 'busy' : 'serve');
    const near = b.source(blob, { id: 'n', near: true, retry_after_ms: 300, act });
    const far = threeFar(b, blob);
    assert.equal((await b.pull(blob)).prefix, -1);
    assert.deepEqual([sum(far), near.requests.length], [0, 24]);
    const other = blobOf(20, 2);
    b.source(other, { id: 'n', near: true, retry_after_ms: 300, act: () => 'busy' });
    const others = threeFar(b, other);
    assert.equal((await b.pull(other)).prefix, -1);
    assert.equal(sum(others), 20);
  });
});

describe('busy is not dead', () => {
  it('the only holder is asked again at the time it has named, not before, and it is no stall', async () => {
    await using b = new PullBench();
    const blob = blobOf(1.5);
    const asked_ms: number[] = [];
    const source = b.source(blob, {
      depth: 1,
      retry_after_ms: 4000,
      act: (_, nth) => {
        asked_ms.push(b.clock.now_ms());
        return nth < 1 ? 'busy' : 'serve';
      },
    });
    const { prefix } = await b.pull(blob);
    assert.equal(prefix, -1);
    assert.deepEqual(source.blames, ['busy']);
    const [first, second] = asked_ms as [number, number];
    assert.equal(second - first >= 4000 && second - first < 4100, true);
    assert.equal(b.register.value('pull_stalls_total', { kind: 'silent' }), 0);
  });

  it('a holder that is free at no time it names is not waited for longer than one that names none', async () => {
    await using b = new PullBench();
    const blob = blobOf(2);
    b.source(blob, { act: () => 'busy', retry_after_ms: 200 });
    const { prefix, ms } = await b.pull(blob);
    assert.equal(prefix, 0);
    assert.equal(ms <= 2600, true, `${ms}`);
  });

  it('a blob that is told busy again and again is waited for while its holder sends other blobs', async () => {
    await using b = new PullBench();
    const [large, late] = [blobOf(40, 1), blobOf(2, 2)];
    b.source(large, { id: 'x', depth: 1, bytes_per_second: 5 * PIECE_BYTES });
    const busy = b.source(late, {
      id: 'x',
      depth: 2,
      act: (_, nth) => (nth < 12 ? 'busy' : 'serve'),
    });
    const first = b.join(large);
    await b.clock.advance(100);
    assert.equal((await b.pull(late)).prefix, -1);
    assert.equal(busy.requests.length, 14);
    await b.outcome(first);
    first.release();
  });

  it('a holder that stalled in one pull is asked in the next one when it is the only one', async () => {
    await using b = new PullBench();
    const [one, two] = [blobOf(2, 1), blobOf(2, 2)];
    b.source(one, { id: 'x', act: () => 'silent' });
    const again = b.source(two, { id: 'x' });
    assert.equal((await b.pull(one)).prefix, 0);
    await b.clock.advance(1000);
    assert.equal((await b.pull(two)).prefix, -1);
    assert.equal(again.requests.length, 2);
  });

  it('a holder that is left alone costs the next pull nothing', async () => {
    await using b = new PullBench();
    const [one, two] = [blobOf(2, 1), blobOf(2, 2)];
    b.source(one, { id: 'x', act: () => 'silent' });
    const again = b.source(two, { id: 'x', act: () => 'silent', list: 'silent' });
    assert.equal((await b.pull(one)).prefix, 0);
    const { prefix, ms } = await b.pull(two);
    assert.deepEqual([prefix, ms <= 10, again.lists_asked], [0, true, 0]);
  });

  it('a connection that is replaced in mid pull blames nobody and costs a few pieces', async () => {
    await using b = new PullBench();
    const blob = blobOf(10);
    const old = b.source(blob, { id: 'x', depth: 2, latency_ms: 50 });
    const newer = b.hidden(blob, { id: 'x', depth: 2 });
    const ticket = b.join(blob);
    await b.clock.advance(120);
    // What a source of the swarm says of a connection that another one took the place of.
    const replaced = new DaemonError('unavailable', 'replaced', { retry_after_ms: 50 });
    old.fetch = () => Promise.reject(replaced);
    b.finder.replace(blob.digest, newer);
    assert.equal((await b.outcome(ticket)).value.kind, 'complete');
    ticket.release();
    assert.deepEqual(
      [...old.blames, ...newer.blames].filter((f) => f !== 'busy'),
      [],
    );
    assert.equal(newer.requests.length >= 6, true);
  });
});

describe('one holder of two images', () => {
  /** A holder at 5 MB/s whose list of the second blob comes when what was asked before has been sent. */
  function shared(b: PullBench, list_ms: number) {
    const [large, late] = [blobOf(30, 1), blobOf(4, 2)];
    const script = { id: 'x', depth: 2, bytes_per_second: 5e6 };
    b.source(large, script);
    return { large, late, lateSource: b.source(late, { ...script, list_ms }) };
  }

  it('a list that is late is no miss while bytes flow from its holder', async () => {
    await using b = new PullBench();
    const { large, late, lateSource } = shared(b, 3500);
    const first = b.join(large);
    await b.clock.advance(500);
    assert.equal((await b.pull(late)).prefix, -1);
    assert.deepEqual(lateSource.blames, []);
    assert.equal((await b.outcome(first)).value.kind, 'complete');
    first.release();
  });

  it('a list that never comes is given up although bytes flow', async () => {
    await using b = new PullBench();
    const { large, late } = shared(b, 1e9);
    const first = b.join(large);
    await b.clock.advance(500);
    const { prefix, ms } = await b.pull(late);
    assert.equal(prefix, 0);
    assert.equal(ms <= 10_100, true, `${ms}`);
    await b.outcome(first);
    first.release();
  });

  it('both get their turns: a blob that came later is here long before a large one is', async () => {
    await using b = new PullBench();
    const { large, late } = shared(b, 0);
    const first = b.join(large);
    await b.clock.advance(500);
    const { prefix, ms } = await b.pull(late);
    assert.equal(prefix, -1);
    assert.equal(ms < 10_000, true, `${ms}`);
    assert.equal(first.progress_bytes() < 15 * PIECE_BYTES, true);
    await b.outcome(first);
    first.release();
  });

  it('a small blob and a list come from a holder that is too busy for pieces', async () => {
    await using b = new PullBench();
    const [large, next, small] = [blobOf(2, 1), blobOf(2, 2), blobOf(0.01, 3)];
    const script = { id: 'x', retry_after_ms: 3000 };
    b.source(large, { ...script, act: (_, nth) => (nth < 2 ? 'busy' : 'serve') });
    const listed = b.source(next, script);
    b.source(small, script);
    const first = b.join(large);
    await b.clock.advance(100);
    assert.equal((await b.pull(small, true)).prefix, -1);
    const second = b.join(next);
    await b.clock.advance(100);
    assert.deepEqual([listed.lists_asked, listed.requests], [1, []]);
    for (const ticket of [first, second]) {
      assert.equal((await b.outcome(ticket)).value.kind, 'complete');
      ticket.release();
    }
  });

  it('a small blob waits neither for depth nor for a slot that large ones have', async () => {
    await using b = new PullBench({ pieces_in_flight_max: 2 });
    const { large } = shared(b, 0);
    const small = blobOf(0.01, 3);
    b.source(small, { id: 'x', depth: 2 });
    const first = b.join(large);
    await b.clock.advance(500);
    const { prefix, ms } = await b.pull(small, true);
    assert.equal(prefix, -1);
    assert.equal(ms <= 20, true, `${ms}`);
    await b.outcome(first);
    first.release();
  });
});
