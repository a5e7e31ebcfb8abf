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
    first_byte_ms: fc.option(fc.integer({ min: 0, max: 500 }), { nil: undefined }),
    state: fc.constantFrom('usable' as const, 'soon' as const, 'out' as const),
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
  ...{ id, near: false, depth: 2, in_flight: 0, rate: undefined, first_byte_ms: undefined },
  ...{ state: 'usable', demoted: false },
  ...more,
});
/** Bytes per millisecond at which a full piece takes so long. */
const rateFor = (ms: number): number => PIECE_BYTES / ms;
const sourcesOf = (input: Partial<PlanInput>): string[] =>
  plan({ ...base, ...input }).map((a) => a.source);

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
          assert.equal(s?.state, 'usable');
          load.set(id, (load.get(id) ?? 0) + 1);
          assert.equal(load.get(id)! <= s.depth, true);
        }
      }),
    );
  });

  it('leaves a piece unasked only when no usable source is free, or while a near one is waited for', () => {
    fc.assert(
      fc.property(input, (i) => {
        const good = i.sources.filter((s) => s.state === 'usable' && !s.demoted);
        const usable = i.sources.filter((s) => s.state === 'usable');
        const counted = good.length > 0 ? good : usable;
        const free = counted.some((s) => s.in_flight < s.depth);
        if (i.budget === 0 || i.missing.length === 0 || !free || plan(i).length > 0) return;
        // Somebody is worth the wait, and the wait has an end: an answer under way, or its own word.
        const awaited = i.sources.filter((s) => s.near && !s.demoted && s.state !== 'out');
        const ends = awaited.some((s) => s.state === 'soon' || s.in_flight >= s.depth);
        assert.equal(ends, true);
      }),
    );
  });

  it('asks somebody whenever a usable source is idle and nobody has said "soon"', () => {
    fc.assert(
      fc.property(input, (i) => {
        const sources = i.sources.map((s) => ({
          ...s,
          in_flight: 0,
          state: s.state === 'soon' ? ('out' as const) : s.state,
        }));
        if (i.budget === 0 || i.missing.length === 0) return;
        const anyone = sources.some((s) => s.state === 'usable');
        assert.equal(plan({ ...i, sources }).length > 0, anyone);
      }),
    );
  });

  it('asks no far source for a missing piece while a near one that is quick enough can be waited for', () => {
    fc.assert(
      fc.property(input, (i) => {
        const quick = plain('near', { near: true, in_flight: 2, rate: rateFor(100) });
        const out = plan({ ...i, sources: [...i.sources, quick] });
        const near = new Set(i.sources.filter((s) => s.near).map((s) => s.id));
        for (const a of out) if (a.reason === 'missing') assert.equal(near.has(a.source), true);
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
    const lame = plain('full', { state: 'out' });
    assert.equal(plan({ ...base, missing: [0], sources: [last, lame] })[0]?.source, 'last');
  });

  it('waits for a near source that is full or busy for a moment, and asks far ones beside a slow, stalled or silent one', () => {
    const far = plain('far');
    const near = { near: true, in_flight: 2 };
    const beside = (more: Partial<PlanSource>, other: PlanSource = far): string[] =>
      sourcesOf({ missing: [0, 1, 2], sources: [plain('near', { ...near, ...more }), other] });
    assert.deepEqual(beside({}), [], 'not measured yet');
    assert.deepEqual(beside({ rate: rateFor(1000) }), []);
    assert.deepEqual(beside({ state: 'soon', in_flight: 0 }), []);
    assert.deepEqual(beside({ rate: rateFor(5000) }), ['far', 'far']);
    assert.deepEqual(beside({ demoted: true }), ['far', 'far']);
    assert.deepEqual(beside({ state: 'out' }), ['far', 'far']);
    // A slow near source is slow because our own line is, when the far one is no quicker.
    assert.deepEqual(beside({ rate: rateFor(5000) }, plain('far', { rate: rateFor(4000) })), []);
    const quick = plain('far', { rate: rateFor(100) });
    assert.deepEqual(beside({ rate: rateFor(5000) }, quick), ['far', 'far']);
  });

  it('does not wait for a near source with a stalled piece', () => {
    const flights = [{ piece: 7, source: 'x', stalled: true, eta_ms: undefined }];
    const sources = [plain('near', { near: true, in_flight: 2 }), plain('far')];
    assert.deepEqual(plan({ ...base, flights, sources }), [
      { piece: 7, source: 'far', reason: 'hedge' },
    ]);
  });

  it('asks who answers soonest first when a small blob is raced', () => {
    const sources = [
      plain('slow', { first_byte_ms: 80 }),
      plain('quick', { first_byte_ms: 5 }),
      plain('other', { first_byte_ms: 40, rate: rateFor(10) }),
    ];
    assert.deepEqual(sourcesOf({ missing: [0], sources, race: true, budget: 1 }), ['quick']);
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

  it('does not duplicate a piece at a fast source where the copy would stand behind others', () => {
    const flights = [{ piece: 7, source: 'a', stalled: false, eta_ms: 8000 }];
    const rate = PIECE_BYTES / 1000;
    const at = (in_flight: number): number =>
      plan({ ...base, flights, sources: [plain('a'), plain('b', { depth: 4, in_flight, rate })] })
        .length;
    assert.deepEqual([at(0), at(1), at(2), at(3)], [1, 1, 0, 0]);
  });

  it('does not duplicate a piece that only queues at a source that is quick enough', () => {
    const flights = [{ piece: 7, source: 'a', stalled: false, eta_ms: Infinity }];
    const b = plain('b', { rate: rateFor(100) });
    const behind = (rate: number): string[] =>
      sourcesOf({ flights, sources: [plain('a', { in_flight: 2, rate }), b] });
    assert.deepEqual(behind(rateFor(50)), []);
    assert.deepEqual(behind(rateFor(500)), ['b']);
  });
});
