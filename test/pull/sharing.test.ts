import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { digestOf } from '../../src/oci/digest.ts';
import { PIECE_BYTES } from '../../src/piece/layout.ts';
import { listOf } from '../fakes/scripted-source.ts';
import { blobOf, PullBench } from './pull-bench.ts';

describe('tickets of one session', () => {
  it('two waiters share one session and neither is sole', async () => {
    await using b = new PullBench();
    const blob = blobOf(3);
    const source = b.source(blob, { depth: 1, act: (i) => (i < 1 ? 'serve' : 'gone') });
    const [one, two] = [b.join(blob), b.join(blob)];
    assert.equal(b.pulls.status().length, 1);
    assert.equal(b.pulls.status()[0]!.waiters, 2);
    const first = await b.outcome(one);
    const second = await b.outcome(two);
    for (const { value } of [first, second]) {
      assert.equal(value.kind === 'prefix' && !value.sole, true);
      assert.equal(value.kind === 'prefix' && value.staged.prefix_bytes, PIECE_BYTES);
    }
    one.release();
    await b.clock.advance(0);
    assert.equal(b.pulls.status().length, 1);
    two.release();
    two.release();
    await b.clock.advance(0);
    assert.deepEqual(b.pulls.status(), []);
    assert.deepEqual(source.requests, [0, 1]);
  });

  it('a sole waiter may move the file, so nobody joins any more until it is released', async () => {
    await using b = new PullBench();
    const blob = blobOf(3);
    b.source(blob, { depth: 1, act: (i) => (i < 1 ? 'serve' : 'gone') });
    const one = b.join(blob);
    const { value } = await b.outcome(one);
    assert.equal(value.kind === 'prefix' && value.sole, true);
    assert.equal(b.tryJoin(blob), undefined);
    one.release();
    await b.clock.advance(0);
    const again = b.join(blob);
    again.release();
  });

  it('pieces behind a prefix that was given away are not fetched again by a retried pull', async () => {
    await using b = new PullBench();
    const blob = blobOf(4);
    b.source(blob, { id: 'x', depth: 4, act: (i) => (i === 1 ? 'gone' : 'serve') });
    const one = b.join(blob);
    const { value } = await b.outcome(one);
    assert.ok(value.kind === 'prefix' && value.sole);
    assert.equal(value.staged.prefix_bytes, PIECE_BYTES);
    await using ingest = await b.store.ingest('ref', { total_bytes: blob.bytes.length });
    await ingest.takePrefix(value.staged, { move: true });
    one.release();
    await b.clock.advance(0);
    const other = b.source(blob, { id: 'y' });
    const again = b.join(blob);
    assert.equal((await b.outcome(again)).value.kind, 'complete');
    again.release();
    assert.deepEqual(other.requests.toSorted(), [0, 1]);
  });

  it('a blob that was kept for peers comes back for containerd without asking anybody', async () => {
    await using b = new PullBench();
    const blob = blobOf(3);
    b.store.put(blob.bytes, 'cache');
    assert.equal((await b.pull(blob)).prefix, -1);
    assert.notEqual(b.store.info(blob.digest), undefined);
  });

  it('a blob that was kept for peers and has become damaged is fetched from them', async () => {
    await using b = new PullBench();
    const blob = blobOf(3);
    b.store.put(blob.bytes, 'cache');
    b.store.blobs.get(blob.digest)!.bytes = new Uint8Array(blob.bytes.length);
    b.source(blob);
    assert.equal((await b.pull(blob)).prefix, -1);
    assert.deepEqual(b.store.blobs.get(blob.digest)?.bytes, blob.bytes);
  });

  it('a cancelled waiter only leaves; a retried pull joins the same session', async () => {
    await using b = new PullBench();
    const blob = blobOf(4);
    const source = b.source(blob, { depth: 1, bytes_per_second: PIECE_BYTES });
    const cancel = new AbortController();
    const one = b.join(blob);
    const waiting = one.settled(cancel.signal);
    await b.clock.advance(1500);
    cancel.abort(new Error('gone away'));
    await assert.rejects(waiting, /gone away/);
    one.release();
    await b.clock.advance(1000);
    const two = b.join(blob);
    assert.equal(two.progress_bytes() >= PIECE_BYTES, true);
    assert.equal((await b.outcome(two)).value.kind, 'complete');
    two.release();
    assert.equal(source.requests.length, 4);
  });

  it('a session that nobody comes back to ends after it has lingered', async () => {
    await using b = new PullBench({ linger_ms: 3000 });
    const blob = blobOf(30);
    const source = b.source(blob, { depth: 1, bytes_per_second: PIECE_BYTES });
    b.join(blob).release();
    await b.clock.advance(2900);
    assert.equal(b.pulls.status().length, 1);
    await b.clock.advance(200);
    assert.deepEqual(b.pulls.status(), []);
    assert.equal(source.in_flight, 0);
    assert.equal(b.register.value('pull_sessions_total', { outcome: 'aborted' }), 1);
    assert.equal(b.clock.pending, 0);
  });

  it('a prefix that settled while nobody waited goes on when a retried pull finds more sources', async () => {
    await using b = new PullBench();
    const blob = blobOf(3);
    const early = b.source(blob, {
      id: 'x',
      depth: 1,
      act: (_, nth) => (nth < 1 ? 'serve' : 'gone'),
    });
    b.join(blob).release();
    await b.clock.advance(500);
    assert.equal(b.pulls.status()[0]!.state, 'prefix');
    const late = b.source(blob, { id: 'y' });
    assert.equal((await b.pull(blob)).prefix, -1);
    const rest = [0, 1, 2].filter((i) => i !== early.requests[0]);
    assert.deepEqual(late.requests.toSorted(), rest);
  });

  it('ending the room settles waiters with nothing', async () => {
    const b = new PullBench();
    const blob = blobOf(3);
    const source = b.source(blob, { act: () => 'silent' });
    const ticket = b.join(blob);
    await b.clock.advance(100);
    const settled = ticket.settled(new AbortController().signal);
    await b[Symbol.asyncDispose]();
    const outcome = await settled;
    assert.equal(outcome.kind === 'prefix' && outcome.staged.prefix_bytes, 0);
    assert.equal(source.in_flight, 0);
    assert.equal(b.tryJoin(blob), undefined);
  });

  it('the session bound makes further joins a miss', async () => {
    await using b = new PullBench({ sessions_max: 2 });
    const blobs = [1, 2, 3].map((seed) => blobOf(2, seed));
    for (const blob of blobs) b.source(blob);
    const [one, two] = [b.join(blobs[0]!), b.join(blobs[1]!)];
    assert.equal(b.tryJoin(blobs[2]!), undefined);
    one.release();
    two.release();
  });

  it('status names sources, bytes and exclusions', async () => {
    await using b = new PullBench();
    const blob = blobOf(6);
    b.source(blob, { id: 'x', depth: 1, bytes_per_second: PIECE_BYTES });
    b.source(blob, { id: 'y', act: () => 'missing' });
    const ticket = b.join(blob);
    await b.clock.advance(1500);
    const [row] = b.pulls.status();
    assert.equal(row?.state, 'fetching');
    assert.equal(row.progress_bytes, PIECE_BYTES);
    assert.deepEqual(
      row.sources.map((s) => [s.id, s.bytes, s.excluded]),
      [
        ['x', PIECE_BYTES, undefined],
        ['y', 0, 'no_content'],
      ],
    );
    ticket.release();
  });

  it('status tells a source that comes last from one that is out', async () => {
    await using b = new PullBench();
    const blob = blobOf(4);
    b.source(blob, { id: 'x', act: () => 'silent' });
    b.source(blob, { id: 'y', depth: 1, bytes_per_second: PIECE_BYTES / 4 });
    const ticket = b.join(blob);
    await b.clock.advance(1100);
    const rows = b.pulls.status()[0]?.sources.map((s) => [s.id, s.excluded, s.demoted]);
    assert.deepEqual(rows, [
      ['x', undefined, 'stalled'],
      ['y', undefined, undefined],
    ]);
    ticket.release();
  });

  it('status says who is out because it claims another list than the one in use', async () => {
    await using b = new PullBench();
    const blob = blobOf(3);
    const wrong = listOf(blob.digest, blobOf(3, 2).bytes);
    for (const id of ['l1', 'l2']) b.source(blob, { id, list: wrong, act: () => 'silent' });
    const honest = b.source(blob, { id: 'honest' });
    const ticket = b.join(blob);
    await b.clock.advance(900);
    const row = b.pulls.status()[0]?.sources.find((s) => s.id === 'honest');
    assert.equal(row?.excluded, 'other_list');
    assert.deepEqual(honest.blames, []);
    ticket.release();
  });
});

describe('fetching ahead', () => {
  const layer = (blob: { digest: string; bytes: Uint8Array }, mediaType = 'layer'): object => ({
    mediaType,
    digest: blob.digest,
    size: blob.bytes.length,
  });

  it('a committed manifest starts what its image needs and somebody has', async () => {
    await using b = new PullBench();
    const [config, one, foreign, unknown] = [
      blobOf(0.01, 1),
      blobOf(2, 2),
      blobOf(2, 3),
      blobOf(2, 4),
    ];
    for (const blob of [config, one, foreign]) b.source(blob);
    const manifest = {
      schemaVersion: 2,
      config: layer(config),
      layers: [layer(one), layer(foreign, 'x.foreign.y'), layer(unknown)],
    };
    const bytes = new TextEncoder().encode(JSON.stringify(manifest));
    b.store.put(bytes);
    b.pulls.manifestCommitted(digestOf(bytes));
    await b.clock.advance(2000);
    assert.equal(b.store.blobs.has(config.digest), true);
    assert.equal(b.store.blobs.has(one.digest), true);
    assert.equal(b.store.blobs.has(foreign.digest), false);
    assert.equal((await b.pull(one)).prefix, -1);
    assert.deepEqual(b.pulls.status(), []);
  });

  it('something that is no manifest, or not here, starts nothing', async () => {
    await using b = new PullBench();
    b.pulls.manifestCommitted(b.store.put(new Uint8Array([1, 2, 3])));
    b.pulls.manifestCommitted(digestOf(new Uint8Array([9])));
    await b.clock.advance(100);
    assert.deepEqual(b.pulls.status(), []);
  });

  it('a waited pull comes before what is fetched ahead', async () => {
    await using b = new PullBench({ pieces_in_flight_max: 2 });
    const [ahead, wanted] = [blobOf(8, 1), blobOf(4, 2)];
    b.source(ahead, { id: 'x', depth: 4, latency_ms: 50 });
    b.source(wanted, { id: 'y', depth: 4, latency_ms: 50 });
    assert.equal(b.pulls.heal(ahead.digest, ahead.bytes.length), true);
    await b.clock.advance(10);
    const { prefix, ms } = await b.pull(wanted);
    assert.equal(prefix, -1);
    assert.equal(ms < 350, true, `${ms}`);
    assert.equal(b.store.blobs.has(ahead.digest), false);
  });

  it('heals a lost blob without anybody waiting, once', async () => {
    await using b = new PullBench();
    const blob = blobOf(2);
    assert.equal(b.pulls.heal(blob.digest, blob.bytes.length), false);
    b.source(blob);
    assert.equal(b.pulls.heal(blob.digest, blob.bytes.length), true);
    assert.equal(b.pulls.heal(blob.digest, blob.bytes.length), false);
    await b.clock.advance(500);
    assert.equal(b.store.blobs.has(blob.digest), true);
  });
});
