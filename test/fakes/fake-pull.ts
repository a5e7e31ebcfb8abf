import type { Digest } from '../../src/oci/digest.ts';
import type { PullOutcome, PullPort, PullTicket } from '../../src/pull/pull-port.ts';

/** One waiter as the test sees it. */
export type FakeTicket = {
  readonly digest: Digest;
  readonly small: boolean;
  progress: number;
  readonly settle: (outcome: PullOutcome) => void;
  /** How often it was released; and whether somebody has begun to wait. */
  released: number;
  waiting: boolean;
};

/** A pull room that a test drives by hand: digests in `known` are joined, every other one is a miss. */
export class FakePull implements PullPort {
  readonly known = new Set<Digest>();
  readonly tickets: FakeTicket[] = [];
  readonly manifests: Digest[] = [];
  readonly refuted: Digest[] = [];
  joins = 0;

  join(target: { digest: Digest; size_bytes: number; small: boolean }): PullTicket | undefined {
    this.joins += 1;
    if (!this.known.has(target.digest)) return undefined;
    const { promise, resolve } = Promise.withResolvers<PullOutcome>();
    const ticket: FakeTicket = {
      digest: target.digest,
      small: target.small,
      progress: 0,
      settle: resolve,
      released: 0,
      waiting: false,
    };
    this.tickets.push(ticket);
    return {
      progress_bytes: () => ticket.progress,
      settled: (signal) => {
        ticket.waiting = true;
        return new Promise((done, fail) => {
          signal.addEventListener('abort', () => fail(signal.reason as Error), { once: true });
          if (signal.aborted) fail(signal.reason as Error);
          promise.then(done, fail);
        });
      },
      release: () => {
        ticket.released += 1;
      },
    };
  }

  manifestCommitted(digest: Digest): void {
    this.manifests.push(digest);
  }

  prefixRefuted(digest: Digest): void {
    this.refuted.push(digest);
  }

  /** The n-th ticket given out; throws when there is none. */
  ticket(index = 0): FakeTicket {
    const ticket = this.tickets[index];
    if (ticket === undefined) throw new Error(`no pull was joined as number ${index}`);
    return ticket;
  }
}
