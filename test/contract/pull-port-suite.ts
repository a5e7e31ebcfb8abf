import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { digestOf, type Digest } from '../../src/oci/digest.ts';
import { PIECE_BYTES } from '../../src/piece/layout.ts';
import type { PullPort, PullTicket } from '../../src/pull/pull-port.ts';

export type OfferedBlob = { readonly digest: Digest; readonly bytes: Uint8Array };

/** A pull room under test. Disposing it checks that nothing is left running. */
export type PullUnderTest = AsyncDisposable & {
  readonly port: PullPort;
  /** Somebody has the blob from now on: all of it, only its first piece, or it never answers. */
  offer(blob: OfferedBlob, what: 'whole' | 'prefix' | 'silent'): void;
  /** Lets time pass until the promise is settled. */
  drive<T>(promise: Promise<T>): Promise<T>;
};

/** Three pieces, the last one short. */
function blob(seed: number): OfferedBlob {
  const bytes = new Uint8Array(2.5 * PIECE_BYTES).fill(seed);
  return { digest: digestOf(bytes), bytes };
}

const never = new AbortController().signal;
const one = blob(1);
const two = blob(2);

function join(p: PullUnderTest, { digest, bytes }: OfferedBlob): PullTicket {
  const ticket = p.port.join({ digest, size_bytes: bytes.length, small: false });
  assert.ok(ticket !== undefined, 'the join is a miss');
  return ticket;
}

/** What every PullPort promises to the doors. `open` makes one where nobody has anything yet. */
export function pullPortSuite(name: string, open: () => PullUnderTest): void {
  describe(`${name} as a PullPort`, () => {
    it('a blob that nobody has is a miss, at once', async () => {
      await using p = open();
      p.offer(one, 'whole');
      const { digest, bytes } = two;
      assert.equal(p.port.join({ digest, size_bytes: bytes.length, small: false }), undefined);
    });

    it('a blob that somebody has comes whole, and every ask says so', async () => {
      await using p = open();
      p.offer(one, 'whole');
      const ticket = join(p, one);
      assert.equal(ticket.progress_bytes(), 0);
      assert.equal((await p.drive(ticket.settled(never))).kind, 'complete');
      assert.equal((await p.drive(ticket.settled(never))).kind, 'complete');
      assert.equal(ticket.progress_bytes(), one.bytes.length);
      ticket.release();
    });

    it('what sources leave out ends as a prefix of whole pieces, which is the progress shown', async () => {
      await using p = open();
      p.offer(one, 'prefix');
      const ticket = join(p, one);
      const outcome = await p.drive(ticket.settled(never));
      assert.ok(outcome.kind === 'prefix');
      assert.equal(outcome.staged.digest, one.digest);
      assert.equal(outcome.staged.prefix_bytes, PIECE_BYTES);
      assert.equal(ticket.progress_bytes(), PIECE_BYTES);
      ticket.release();
    });

    it('a sole waiter may move the prefix, one of two may not', async () => {
      await using p = open();
      for (const each of [one, two]) p.offer(each, 'prefix');
      const alone = join(p, one);
      const pair = [join(p, two), join(p, two)];
      const sole = async (ticket: PullTicket): Promise<boolean | undefined> => {
        const outcome = await p.drive(ticket.settled(never));
        return outcome.kind === 'prefix' ? outcome.sole : undefined;
      };
      assert.equal(await sole(alone), true);
      assert.equal(await sole(pair[0]!), false);
      for (const ticket of [alone, ...pair]) ticket.release();
    });

    it('all who wait for a blob get it', async () => {
      await using p = open();
      p.offer(one, 'whole');
      const tickets = [join(p, one), join(p, one), join(p, one)];
      const outcomes = await p.drive(Promise.all(tickets.map((t) => t.settled(never))));
      assert.deepEqual(
        outcomes.map((o) => o.kind),
        ['complete', 'complete', 'complete'],
      );
      for (const ticket of tickets) ticket.release();
    });

    it('waiting ends with the reason of its signal, and only so: a later wait gets the outcome', async () => {
      await using p = open();
      p.offer(one, 'whole');
      const ticket = join(p, one);
      const reason = new Error('the client has gone');
      await assert.rejects(p.drive(ticket.settled(AbortSignal.abort(reason))), reason);
      const end = new AbortController();
      const waiting = ticket.settled(end.signal);
      end.abort(reason);
      await assert.rejects(p.drive(waiting), reason);
      assert.equal((await p.drive(ticket.settled(never))).kind, 'complete');
      ticket.release();
    });

    it('one waiter that goes takes nothing from another', async () => {
      await using p = open();
      p.offer(one, 'whole');
      const [gone, stays] = [join(p, one), join(p, one)];
      gone.release();
      assert.equal((await p.drive(stays.settled(never))).kind, 'complete');
      stays.release();
    });

    it('peers that never answer are no failure', async () => {
      await using p = open();
      p.offer(one, 'silent');
      const ticket = join(p, one);
      const outcome = await p.drive(ticket.settled(never));
      assert.equal(outcome.kind === 'prefix' && outcome.staged.prefix_bytes, 0);
      ticket.release();
    });

    it('a ticket may be released twice, settled or not', async () => {
      await using p = open();
      p.offer(one, 'whole');
      const [early, late] = [join(p, one), join(p, one)];
      early.release();
      early.release();
      await p.drive(late.settled(never));
      late.release();
      late.release();
    });

    it('hears of manifests and refuted prefixes that it knows nothing of, and does not fail', async () => {
      await using p = open();
      p.port.manifestCommitted(two.digest);
      p.port.prefixRefuted(two.digest);
    });
  });
}
