import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { PIECE_BYTES } from '../../src/piece/layout.ts';
import { listOf } from '../fakes/scripted-source.ts';
import { type Blob, blobOf, PullBench } from './pull-bench.ts';

/** The blob with a wrong byte, its last one by default, as a liar would serve it under the same digest. */
function forged(blob: Blob, at = blob.bytes.length - 1): Blob {
  const bytes = Uint8Array.from(blob.bytes);
  bytes[at]! ^= 1;
  return { digest: blob.digest, bytes };
}

/** The next copy that is staged loses a bit of that piece in the moment it is whole. */
function flipWhenWhole(b: PullBench, piece: number): void {
  const stage = b.store.stage.bind(b.store);
  b.store.stage = async (...blob) => {
    b.store.stage = stage;
    const staged = await stage(...blob);
    const publish = staged.publish.bind(staged);
    staged.publish = () => {
      staged.publish = publish;
      staged.damage(piece);
      return publish();
    };
    return staged;
  };
}

describe('trust', () => {
  it('a sender whose pieces fail its own list is blamed, and the pull completes from another', async () => {
    await using b = new PullBench();
    const blob = blobOf(4);
    const liar = b.source(blob, { id: 'x', act: () => 'wrong' });
    const honest = b.source(blob, { id: 'y' });
    assert.equal((await b.pull(blob)).prefix, -1);
    assert.equal(liar.blames.includes('wrong_piece'), true);
    assert.deepEqual(honest.blames, []);
  });

  it('a holder that finds its own piece damaged when asked again is not blamed for it', async () => {
    await using b = new PullBench();
    const blob = blobOf(3);
    const damaged = b.source(blob, {
      id: 'x',
      act: (index, nth) => (nth === 0 ? 'wrong' : index === 0 ? 'missing' : 'serve'),
    });
    const honest = b.source(blob, { id: 'y', latency_ms: 50 });
    assert.equal((await b.pull(blob)).prefix, -1);
    assert.deepEqual(
      damaged.blames.filter((fault) => fault !== 'no_content'),
      [],
    );
    assert.deepEqual(honest.blames, []);
  });

  it('a piece that was damaged on the way costs nobody anything', async () => {
    await using b = new PullBench();
    const blob = blobOf(3);
    const only = b.source(blob, { id: 'x', act: (_index, nth) => (nth === 0 ? 'wrong' : 'serve') });
    assert.equal((await b.pull(blob)).prefix, -1);
    assert.deepEqual(only.blames, []);
  });

  it('a sender of a wrong blob of one piece is blamed', async () => {
    await using b = new PullBench();
    const blob = blobOf(0.5);
    const liar = b.source(blob, { id: 'x', act: () => 'wrong' });
    assert.equal((await b.pull(blob)).prefix, 0);
    assert.deepEqual(liar.blames, ['wrong_piece']);
  });

  it('a piece of wrong length counts as wrong', async () => {
    await using b = new PullBench();
    const blob = blobOf(0.5);
    const liar = b.source(blob, { id: 'x', act: () => 'short' });
    assert.equal((await b.pull(blob)).prefix, 0);
    assert.deepEqual(liar.blames, ['wrong_piece']);
  });

  for (const first of ['liar', 'honest'] as const) {
    it(`one of two holders lies about the list (${first} known first): the author pays, the blob comes`, async () => {
      await using b = new PullBench();
      const blob = blobOf(3);
      const lie = forged(blob);
      const tell = (): ReturnType<typeof b.source> => b.source(lie, { id: 'liar' });
      const early = first === 'liar' ? tell() : undefined;
      const honest = b.source(blob, { id: 'honest' });
      const liar = early ?? tell();
      assert.equal((await b.pull(blob)).prefix, -1);
      assert.deepEqual(honest.blames, []);
      assert.deepEqual(liar.blames, ['wrong_list']);
    });
  }

  it('an honest sender is not blamed because the chosen list is a lie', async () => {
    await using b = new PullBench();
    const blob = blobOf(3);
    const wrong = listOf(blob.digest, forged(blob).bytes);
    const liars = ['l1', 'l2'].map((id) => b.source(blob, { id, list: wrong, act: () => 'gone' }));
    const honest = b.source(blob, { id: 'honest' });
    assert.equal((await b.pull(blob)).prefix, -1);
    assert.deepEqual(honest.blames, []);
    assert.equal(
      liars.every((l) => l.blames.includes('gone')),
      true,
    );
  });

  it('the only holder lies about the list: nothing is given and it pays', async () => {
    await using b = new PullBench();
    const blob = blobOf(2);
    const liar = b.source(forged(blob));
    assert.equal((await b.pull(blob)).prefix, 0);
    assert.deepEqual(liar.blames, ['wrong_list']);
    assert.equal(b.store.blobs.size, 0);
  });

  it('a list of another blob breaks the protocol', async () => {
    await using b = new PullBench();
    const blob = blobOf(2);
    const source = b.source(blob, { list: listOf(blobOf(1).digest, blob.bytes) });
    assert.equal((await b.pull(blob)).prefix, 0);
    assert.deepEqual(source.blames, ['protocol']);
  });

  it('a bit that flips on our own side costs nobody anything but the piece', async () => {
    await using b = new PullBench();
    const blob = blobOf(4);
    flipWhenWhole(b, 2);
    const sources = ['x', 'y'].map((id) => b.source(blob, { id }));
    assert.equal((await b.pull(blob)).prefix, -1);
    assert.deepEqual(
      sources.flatMap((s) => s.blames),
      [],
    );
    assert.deepEqual(sources.flatMap((s) => s.requests).toSorted(), [0, 1, 2, 2, 3]);
    assert.deepEqual(b.store.blobs.get(blob.digest)?.bytes, blob.bytes);
  });

  it('what two lists agree on is not fetched again when the first one was a lie', async () => {
    await using b = new PullBench();
    const blob = blobOf(12);
    const liar = b.source(forged(blob), { id: 'liar' });
    const honest = b.source(blob, { id: 'honest', list_ms: 20 });
    assert.equal((await b.pull(blob)).prefix, -1);
    assert.deepEqual([liar.blames, honest.blames], [['wrong_list'], []]);
    const asked = liar.requests.length + honest.requests.length;
    assert.equal(asked <= 14, true, `${asked} requests for 12 pieces and one that was wrong`);
  });

  it('a prefix ends where another holder contradicts its only author', async () => {
    await using b = new PullBench();
    const blob = blobOf(5);
    const act = (i: number): 'serve' | 'gone' => (i < 4 ? 'serve' : 'gone');
    b.source(forged(blob, PIECE_BYTES), { id: 'liar', depth: 1, act });
    b.source(blob, { id: 'honest', act: () => 'missing', list_ms: 20 });
    assert.equal((await b.pull(blob)).prefix, PIECE_BYTES);
  });

  it('a prefix that two holders vouch for is not cut for a third who contradicts them', async () => {
    await using b = new PullBench();
    const blob = blobOf(5);
    const act = (i: number): 'serve' | 'gone' => (i < 4 ? 'serve' : 'gone');
    b.source(forged(blob, PIECE_BYTES), { id: 'liar', act: () => 'missing', list_ms: 20 });
    for (const id of ['x', 'y']) b.source(blob, { id, depth: 1, act });
    assert.equal((await b.pull(blob)).prefix, 4 * PIECE_BYTES);
  });

  describe('a prefix that containerd found wrong', () => {
    const act = (i: number): 'serve' | 'gone' => (i === 0 ? 'serve' : 'gone');

    it('costs those who vouched for it as soon as the true bytes are here, once', async () => {
      await using b = new PullBench();
      const blob = blobOf(3);
      const liar = b.source(forged(blob), { depth: 1, act });
      assert.equal((await b.pull(blob)).prefix > 0, true);
      b.pulls.prefixRefuted(blob.digest);
      b.pulls.prefixRefuted(blob.digest);
      assert.deepEqual(liar.blames, ['gone'], 'nothing is proved yet');
      b.store.put(blob.bytes);
      await b.clock.advance(0);
      assert.deepEqual(liar.blames, ['gone', 'wrong_list']);
    });

    it('costs nobody anything when it was what it should be', async () => {
      await using b = new PullBench();
      const blob = blobOf(3);
      const honest = b.source(blob, { depth: 1, act });
      assert.equal((await b.pull(blob)).prefix > 0, true);
      b.pulls.prefixRefuted(blob.digest);
      b.store.put(blob.bytes);
      await b.clock.advance(0);
      assert.deepEqual(honest.blames, ['gone']);
    });

    it('is not handed out again, while the whole blob may be', async () => {
      await using b = new PullBench();
      const blob = blobOf(3);
      b.source(blob, { id: 'x', depth: 1, act });
      assert.equal((await b.pull(blob)).prefix > 0, true);
      b.pulls.prefixRefuted(blob.digest);
      await b.clock.advance(1000);
      assert.equal((await b.pull(blob)).prefix, 0);
      b.source(blob, { id: 'y' });
      await b.clock.advance(1000);
      assert.equal((await b.pull(blob)).prefix, -1);
    });
  });

  it('a holder without the list is passed over', async () => {
    await using b = new PullBench();
    const blob = blobOf(2);
    const empty = b.source(blob, { id: 'x', list: 'missing' });
    b.source(blob, { id: 'y' });
    assert.equal((await b.pull(blob)).prefix, -1);
    assert.deepEqual(empty.blames, ['no_content']);
  });

  it('holders that are silent about the list do not hold up the others for long', async () => {
    await using b = new PullBench();
    const blob = blobOf(2);
    for (const id of ['x', 'y', 'z']) b.source(blob, { id, list: 'silent', act: () => 'silent' });
    b.source(blob, { id: 'good', near: true });
    const { prefix, ms } = await b.pull(blob);
    assert.equal(prefix, -1);
    assert.equal(ms < 1000, true, `${ms}`);
  });
});
