import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Figures } from './figures.ts';

const MIB = 1024 * 1024;
const MOST = { rss_bytes: 400 * MIB, fds: 100 };

/** A soak of one daemon (or of one that is killed after every `life` cycles) by a rule for its memory in MiB and its descriptors. */
function soaked(
  cycles: number,
  rule: (cycle: number) => { readonly mib?: number; readonly fds?: number },
  life = Infinity,
): Figures {
  const figures = new Figures('host');
  for (let cycle = 1; cycle <= cycles; cycle++) {
    const { mib = 200, fds = 70 } = rule(cycle);
    const rss_bytes = mib * MIB;
    const pid = 1 + Math.floor(cycle / life);
    const memory = { rss_bytes, anon_bytes: rss_bytes, peak_rss_bytes: rss_bytes };
    figures.add(cycle, { pid, ...memory, fds, deleted: [] });
  }
  return figures;
}

test('figures that rise in the warm-up and then swing are flat', () => {
  const swing = (cycle: number) => ({
    mib: Math.min(100 + cycle * 3, 190) + 15 * Math.sin(cycle / 4),
    fds: Math.min(35 + cycle * 2, 70) + (cycle % 5),
  });
  soaked(300, swing).assertFlat(MOST);
});

test('memory that climbs by a quarter of a mebibyte a cycle is not flat', () => {
  const leak = (cycle: number) => ({ mib: 100 + cycle / 4 + 10 * Math.sin(cycle) });
  assert.throws(() => soaked(300, leak).assertFlat(MOST), /memory climbs/);
});

test('a descriptor lost in every fifth cycle is not flat', () => {
  const leak = (cycle: number) => ({ fds: 40 + Math.floor(cycle / 5) });
  assert.throws(() => soaked(300, leak).assertFlat({ ...MOST, fds: 1000 }), /descriptors climb/);
  assert.throws(() => soaked(20, leak).assertFlat({ ...MOST, fds: 43 }), /44 descriptors at rest/);
});

test('a leak shows in the life of any daemon that lasted, and a kill does not hide it', () => {
  const leak = (cycle: number) => ({ mib: 100 + (cycle % 150) / 3 });
  assert.throws(() => soaked(450, leak, 150).assertFlat(MOST), /memory climbs/);
});

test('one moment above the limit is one too many', () => {
  const once = (cycle: number) => (cycle === 3 ? { mib: 401 } : {});
  assert.throws(() => soaked(20, once).assertFlat(MOST), /by cycle 3/);
});
