import type { PullOutcome } from '../../src/pull/pull-port.ts';
import { NothingStaged } from '../../src/pull/nothing-staged.ts';
import { PIECE_BYTES } from '../../src/piece/layout.ts';
import { type OfferedBlob, pullPortSuite } from '../contract/pull-port-suite.ts';
import { FakePull } from '../fakes/fake-pull.ts';
import { PullBench } from './pull-bench.ts';

pullPortSuite('the pull room', () => {
  const b = new PullBench();
  return {
    port: b.pulls,
    offer: (blob, what) => {
      const first = (index: number) => (index === 0 ? 'serve' : 'missing');
      const act =
        what === 'whole' ? undefined : what === 'prefix' ? first : () => 'silent' as const;
      b.source(blob, { depth: 1, ...(act && { act }) });
    },
    drive: async (promise) => (await b.drive(promise)).value,
    [Symbol.asyncDispose]: () => b[Symbol.asyncDispose](),
  };
});

/** The fake settles by hand; here as the offers say, whenever somebody waits. */
function settledByOffer(pull: FakePull, offers: ReadonlyMap<string, Offer>): void {
  for (const ticket of pull.tickets) {
    const offer = offers.get(ticket.digest);
    if (offer === undefined || ticket.progress > 0) continue;
    const { blob, what } = offer;
    ticket.progress = what === 'whole' ? blob.bytes.length : what === 'prefix' ? PIECE_BYTES : 0;
    const others = pull.tickets.filter((t) => t.digest === ticket.digest && t.released === 0);
    ticket.settle(outcomeOf(offer, others.length === 1));
  }
}

type Offer = { readonly blob: OfferedBlob; readonly what: 'whole' | 'prefix' | 'silent' };

function outcomeOf({ blob, what }: Offer, sole: boolean): PullOutcome {
  if (what === 'whole') return { kind: 'complete' };
  const nothing = new NothingStaged(blob.digest, blob.bytes.length);
  const prefix_bytes = what === 'prefix' ? PIECE_BYTES : 0;
  return { kind: 'prefix', staged: Object.assign(nothing, { prefix_bytes }), sole };
}

pullPortSuite('the fake pull room', () => {
  const pull = new FakePull();
  const offers = new Map<string, Offer>();
  return {
    port: pull,
    offer: (blob, what) => {
      pull.known.add(blob.digest);
      offers.set(blob.digest, { blob, what });
    },
    drive: (promise) => {
      settledByOffer(pull, offers);
      return promise;
    },
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
});
