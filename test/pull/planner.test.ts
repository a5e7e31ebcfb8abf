import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { PIECE_BYTES } from '../../src/piece/layout.ts';
import { type PlanInput, type PlanSource, plan } from '../../src/pull/planner.ts';

const source = (id: string): fc.Arbitrary<PlanSource> =>
  fc.record({
    id: fc.constant(id),
    near: fc.boolean(),
    depth: fc.integer({ min: 1, max: 4 }),
    in_flight: fc.integer({ min: 0, max: 4 }),
    rate: fc.option(fc.integer({ min: 1, max: 100_000 }), { nil: undefined }),
    usable: fc.boolean(),
    demoted: fc.boolean(),
  });

const input: fc.Arbitrary<PlanInput> = fc
  .record({
    sources: fc.tuple(...['a', 'b', 'c', 'd', 'e'].map(source)),
    count: fc.integer({ min: 0, max: 5 }),
    missing: fc.uniqueArray(fc.integer({ min: 0, max: 40 }), { maxLength: 20 }),
    flights: fc.array(
      fc.record({
        piece: fc.integer({ min: 41, max: 60 }),
        source: fc.constantFrom('a', 'b', 'c', 'd', 'e'),
        stalled: fc.boolean(),
        eta_ms: fc.option(fc.double({ min: 0, max: 1e6, noNaN: true }), { nil: undefined }),
      }),
      { maxLength: 8 },
    ),
    budget: fc.integer({ min: 0, max: 20 }),
    order: fc.constantFrom('prefix' as const, 'spread' as const),
    race: fc.boolean(),
    seed: fc.double({ min: 0, max: 0.999, noNaN: true }),
  })
  .map(({ sources, count, missing, seed, ...rest }) => ({
    ...rest,
    sources: sources.slice(0, count),
    missing: missing.toSorted((a, b) => a - b),
    piece_bytes: PIECE_BYTES,
    random: () => seed,
  }));

const base: PlanInput = {
  missing: [],
  flights: [],
  sources: [],
  budget: 16,
  order: 'prefix',
  piece_bytes: PIECE_BYTES,
  race: false,
  random: () => 0.5,
};
const plain = (id: string, more: Partial<PlanSource> = {}): PlanSource => ({
  ...{ id, near: false, depth: 2, in_flight: 0, rate: undefined, usable: true, demoted: false },
  ...more,
});

describe('the planner', () => {
  it('never asks one source twice for a piece, never an excluded one, never beyond depth or budget', () => {
    fc.assert(
      fc.property(input, (i) => {
        const out = plan(i);
        assert.equal(out.length <= i.budget, true);
        const asked = new Set(i.flights.map((f) => `${f.piece}@${f.source}`));
        const load = new Map(i.sources.map((s) => [s.id, s.in_flight]));
        for (const { piece, source: id } of out) {
          assert.equal(asked.has(`${piece}@${id}`), false);
          asked.add(`${piece}@${id}`);
          const s = i.sources.find((x) => x.id === id);
          assert.equal(s?.usable, true);
          load.set(id, (load.get(id) ?? 0) + 1);
          assert.equal(load.get(id)! <= s.depth, true);
        }
      }),
    );
  });

  it('makes progress whenever a usable source is free and a piece is missing', () => {
    fc.assert(
      fc.property(input, (i) => {
        const usable = i.sources.filter((s) => s.usable);
        const good = usable.filter((s) => !s.demoted);
        const counted = good.length > 0 ? good : usable;
        const free = counted.some((s) => s.in_flight < s.depth);
        if (i.budget > 0 && i.missing.length > 0 && free) assert.notEqual(plan(i).length, 0);
      }),
    );
  });

  it('assigns a missing piece once', () => {
    fc.assert(
      fc.property(input, (i) => {
        const pieces = plan(i).filter((a) => a.reason === 'missing');
        assert.equal(new Set(pieces.map((a) => a.piece)).size, pieces.length);
      }),
    );
  });

  it('takes the lowest pieces first when somebody waits', () => {
    const out = plan({ ...base, missing: [3, 5, 9], sources: [plain('a'), plain('b')] });
    assert.deepEqual(
      out.map((a) => a.piece),
      [3, 5, 9],
    );
    assert.deepEqual(new Set(out.map((a) => a.source)), new Set(['a', 'b']));
  });

  it('prefers the faster of two idle sources and the near one to both', () => {
    const sources = [plain('slow', { rate: 10 }), plain('fast', { rate: 9000 })];
    assert.equal(plan({ ...base, missing: [0], sources })[0]?.source, 'fast');
    const near = plain('near', { near: true, rate: 10 });
    assert.equal(plan({ ...base, missing: [0], sources: [...sources, near] })[0]?.source, 'near');
  });

  it('leaves demoted sources out while others are usable, and takes them when none is', () => {
    const last = plain('last', { demoted: true });
    const full = plain('full', { in_flight: 2 });
    assert.deepEqual(plan({ ...base, missing: [0], sources: [last, full] }), []);
    const lame = plain('full', { usable: false });
    assert.equal(plan({ ...base, missing: [0], sources: [last, lame] })[0]?.source, 'last');
  });

  it('gives a stalled piece a second source before anything else', () => {
    const flights = [{ piece: 7, source: 'a', stalled: true, eta_ms: undefined }];
    const sources = [plain('a', { demoted: true, in_flight: 1 }), plain('b')];
    const [first] = plan({ ...base, missing: [8], flights, sources });
    assert.deepEqual(first, { piece: 7, source: 'b', reason: 'hedge' });
  });

  it('duplicates at the end only when the copy would clearly win', () => {
    const sources = [plain('a', { in_flight: 1, rate: 100 }), plain('b', { rate: 100_000 })];
    const flight = { piece: 7, source: 'a', stalled: false };
    const with_eta = (eta_ms: number | undefined): number =>
      plan({ ...base, flights: [{ ...flight, eta_ms }], sources }).length;
    assert.deepEqual([with_eta(5000), with_eta(60), with_eta(undefined)], [1, 0, 0]);
  });
});
