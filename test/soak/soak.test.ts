/**
 * Hundreds of pulls, removals, cancelled pulls, killed daemons and killed containerds in random order on two booted hosts with the
 * installed package: nothing may pile up, and nothing may be lost.
 *
 * `LAYERSWARM_SOAK_CYCLES` = cycles (default 300, 20 for a short look), `LAYERSWARM_SOAK_SEED` = another order. Not in plain
 * `npm test`: `npm run test:soak`.
 */
import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import { readEveryBlob } from '../host/lab/content-oracle.ts';
import { NOTHING_LEFT, blobsOf, hostReason, leftBehind } from '../host/swarm-lab.ts';
import { untilTrue } from '../host/wait.ts';
import { SERVICE } from '../packaging/lab/installed-host.ts';
import { Cycles } from './cycles.ts';
import { Figures } from './figures.ts';
import { CACHE_MAX_BYTES, MEMORY_MAX_BYTES, SoakBench } from './soak-bench.ts';
import type { SoakedHost } from './soaked-host.ts';

const DEFAULT_CYCLES = 300;
/** A daemon's sockets, events and libraries, with some air; it keeps the blobs it reads open on top, each once. */
const FDS_BESIDE_BLOBS = 64;
/** Cycles between two looks at everything. */
const LOOK_EVERY = 10;

const cycles = Number(process.env['LAYERSWARM_SOAK_CYCLES'] ?? DEFAULT_CYCLES);
const seed = process.env['LAYERSWARM_SOAK_SEED'] ?? 'soak';
if (!Number.isInteger(cycles) || cycles < 1) throw new Error(`a soak of ${cycles} cycles`);
const skip = hostReason() ?? false;

suite(`a soak of ${cycles} cycles`, { skip }, () => {
  let bench: SoakBench;
  let life: Cycles;
  const stack = new AsyncDisposableStack();
  const figures = new Map<SoakedHost, Figures>();

  before(async () => {
    bench = stack.use(await SoakBench.create());
    life = new Cycles(bench, seed);
    for (const host of bench.hosts) figures.set(host, new Figures(host.name));
  });

  after(async () => {
    await stack.disposeAsync();
    assert.deepEqual(await leftBehind(), NOTHING_LEFT);
  });

  test('after every ten cycles the host is in order, and nothing has piled up', async (t) => {
    for (const host of bench.hosts) {
      const limit = await host.enforcedLimit();
      t.diagnostic(
        limit === undefined
          ? `${host.name}: no memory controller enforces the unit's limit here; the resident memory is asserted instead`
          : `${host.name}: the kernel enforces ${limit} bytes`,
      );
      assert.ok(limit === undefined || limit === MEMORY_MAX_BYTES, `${String(limit)} bytes`);
      assert.equal(Number(await host.host.property(SERVICE, 'MemoryMax')), MEMORY_MAX_BYTES);
    }
    for (let cycle = 1; cycle <= cycles; cycle++) {
      const done = await life.next().catch((error: unknown) => {
        throw new Error(`cycle ${cycle} of seed "${seed}"`, { cause: error });
      });
      for (const host of bench.hosts) {
        await host.rest();
        figures.get(host)!.add(cycle, await host.footprint());
      }
      if (cycle % LOOK_EVERY !== 0) continue;
      for (const host of bench.hosts) await inOrder(host);
      t.diagnostic(`cycle ${cycle} (${done}): ${toldNow(figures)}`);
    }
    const counts = [...life.counts].map(([action, n]) => `${n} ${action}`).join(', ');
    t.diagnostic(`seed "${seed}": ${counts}`);
  });

  test('memory and open files of both daemons are flat after their warm-up', (t) => {
    for (const each of figures.values()) {
      t.diagnostic(each.told());
      each.assertFlat({ rss_bytes: MEMORY_MAX_BYTES, fds: FDS_BESIDE_BLOBS + sizes().size });
    }
  });

  test('no daemon ended but those that were killed', async () => {
    const kills = life.counts.get('kill of the daemon') ?? 0;
    for (const [host, restarts] of [
      [bench.a, 0],
      [bench.b, kills],
    ] as const) {
      assert.equal(Number(await host.host.property(SERVICE, 'NRestarts')), restarts, host.name);
    }
  });

  test('every image can still be pulled, is right byte for byte, and runs', async () => {
    for (const host of bench.hosts) {
      for (const pushed of bench.images) {
        await life.pull(host, pushed);
        assert.equal(await host.suite.runContainer(pushed.ref), `${pushed.image.greeting}\n`);
      }
      await host.rest();
      await inOrder(host);
      assert.equal(await host.host.failedUnits(), '');
    }
  });

  /** Every blob of every image once. */
  function sizes(): ReadonlyMap<string, number> {
    const blobs = bench.images.flatMap(({ image }) => blobsOf(image));
    return new Map(blobs.map(({ digest, size }) => [digest, size]));
  }

  /** Everything that may not grow is within its bound, and containerd's database and our store agree byte for byte. */
  async function inOrder(host: SoakedHost): Promise<void> {
    const all = [...sizes().values()];
    const all_bytes = all.reduce((sum, size) => sum + size, 0);
    await untilTrue(`${host.name}'s cache within its budget`, async () => {
      return (await host.rooms()).cache.bytes <= CACHE_MAX_BYTES;
    });
    await untilTrue(`${host.name} without open files that have no name`, async () => {
      return (await host.footprint()).deleted.length === 0;
    });
    const { quarantine, ingests } = await host.rooms();
    assert.deepEqual(quarantine.entries, [], `quarantine of ${host.name}`);
    // One for each blob at most: containerd's ref of a blob is always the same, and a cancelled pull's is gone on with.
    assert.ok(
      ingests.entries.length <= all.length,
      `${ingests.entries.length} ingests on ${host.name}`,
    );
    assert.ok(ingests.bytes <= all_bytes, `${ingests.bytes} bytes of ingests on ${host.name}`);
    // What has just ended may not have been waited for yet.
    await untilTrue(
      `${host.name} without a zombie`,
      async () => (await host.zombies()).length === 0,
    );
    assert.deepEqual(await readEveryBlob(host.containerd), [], `blobs of ${host.name}`);
    const listed = new Set((await host.host.sh('ctr content ls --quiet')).split('\n'));
    const images = life.imagesOf(host);
    const missing = images
      .flatMap(({ image }) => blobsOf(image))
      .filter((b) => !listed.has(b.digest));
    assert.deepEqual(missing, [], `blobs that containerd's database of ${host.name} lacks`);
  }
});

function toldNow(figures: ReadonlyMap<SoakedHost, Figures>): string {
  return [...figures.values()].map((each) => each.now()).join('; ');
}
