/**
 * The power goes at random instants of a host's life, and what containerd was told is there must be there when it is back.
 *
 * How: containerd's root (content, metadata, snapshots) and our state directory lie on an ext4 of their own, on a loop device over a
 * file that a FUSE server of ours serves. The server logs every write and every flush in the order it acknowledges them, so the
 * disk can be made as it was between any two writes, with the writes since the last flush kept, lost, or lost by chance in blocks of
 * 4 KiB: all that a disk with a volatile cache may do. Data and metadata that the kernel had not written back yet are lost by nature.
 *
 * What it sees: orders of writes that the programs did not force (a rename that a later fdatasync does not carry; a file that was
 * not synced and comes back empty or full of zeros), and every half state of both daemons. What it cannot see: blocks torn below
 * 4 KiB, disks that lie about a flush, other file systems than this kernel's ext4 in its default mode, and memory that fails.
 *
 * `LAYERSWARM_POWERCUTS` = cuts over all lines (default 12, hundreds take about 4 s each), `LAYERSWARM_POWERCUT_LINES` = containerd
 * lines (default `1.6,1.7,2.1`; `2.3` is built first), `LAYERSWARM_POWERCUT_SEED` = another order of steps and instants.
 */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, suite, test } from 'node:test';
import { buildImage } from '../fixtures/image.ts';
import type { ImageRecipe } from '../fixtures/image.ts';
import { cacheDir, debianTools } from '../host/lab/debian-packages.ts';
import type { ContainerdLine } from '../host/lab/debian-packages.ts';
import { runCommand } from '../host/lab/run-command.ts';
import type { Pushed } from '../host/pull-bench.ts';
import { NOTHING_LEFT, SwarmLab, leftBehind } from '../host/swarm-lab.ts';
import { bundle } from '../setup/bundle.ts';
import { aftermathOf } from './aftermath.ts';
import type { Aftermath } from './aftermath.ts';
import { instants } from './instants.ts';
import { blobPromises } from './promises.ts';
import { allOf, record } from './recording.ts';
import type { CutImages, RecordingOptions } from './recording.ts';

const LINES = ['1.6', '1.7', '2.1', '2.3'] as const satisfies readonly ContainerdLine[];
const DEFAULT_CUTS = 12;
/** Cuts of one recording; more cuts mean more lives. */
const CUTS_PER_LIFE = 60;
/**
 * ext4 with its own 5 s between two commits of its journal on a disk that takes as long for a flush as those of cloud hosts do, and
 * a quick disk whose file system is told to take its time.
 */
const DISKS: readonly RecordingOptions['disk'][] = [
  { flush_ms: 8, bytes_per_ms: 60_000 },
  { flush_ms: 1, mount_options: ['commit=60'] },
];

/** Cuts of one kind of loss that are told in full. */
const SHOWN = 5;

const cuts = Number(process.env['LAYERSWARM_POWERCUTS'] ?? DEFAULT_CUTS);
const seed = process.env['LAYERSWARM_POWERCUT_SEED'] ?? 'power';
const wanted = (process.env['LAYERSWARM_POWERCUT_LINES'] ?? '1.6,1.7,2.1').split(',');
const lines = LINES.filter((line) => wanted.includes(line));
if (!(cuts >= 1) || lines.length === 0 || lines.length !== wanted.length)
  throw new Error(`${cuts} power cuts with containerd ${wanted.join()}: lines are ${LINES.join()}`);
const lives_per_line = Math.max(1, Math.ceil(cuts / lines.length / CUTS_PER_LIFE));

for (let life = 0; life < lives_per_line * lines.length; life++) {
  const line = lines[life % lines.length]!;
  const disk = DISKS[(life + Math.floor(life / lines.length)) % DISKS.length]!;
  const name = `life ${life + 1}, containerd ${line}, ${JSON.stringify(disk)}`;
  suite(`power cuts: ${name}`, { timeout: 3_600_000 }, () => {
    const count = Math.ceil(cuts / (lives_per_line * lines.length));
    const found: Aftermath[] = [];

    before(async () => {
      const told = await liveAndCut({ line, disk, seed: `${seed} ${life}`, count });
      found.push(...told);
    });

    after(async () => {
      assert.deepEqual(await leftBehind(), NOTHING_LEFT);
      const { stdout } = await runCommand(['losetup', '--all']);
      assert.ok(!stdout.includes(`/ls${process.pid}-`), stdout);
    });

    for (const [what, part] of [
      ['both daemons start', 'down'],
      ['every blob containerd knows is there and right', 'lost'],
      ['nothing under blobs/ is half or wrong', 'wrong'],
      ['an image a client was told it has is known', 'forgotten'],
      ['another pull makes every image whole', 'unhealed'],
    ] as const)
      test(`${what} after each of ${count} cuts`, (t) => {
        assert.equal(found.length, count);
        const bad = found.filter((aftermath) => aftermath[part].length > 0);
        t.diagnostic(`${name}: ${part} after ${bad.length} of ${found.length} cuts`);
        for (const aftermath of bad.slice(0, SHOWN))
          t.diagnostic(`${JSON.stringify(aftermath.cut)} ${JSON.stringify(aftermath[part])}`);
        assert.equal(bad.length, 0, `${part} after ${bad.length} of ${found.length} cuts`);
      });
  });
}

interface LifeOptions {
  readonly line: ContainerdLine;
  readonly disk: RecordingOptions['disk'];
  readonly seed: string;
  readonly count: number;
}

async function liveAndCut(options: LifeOptions): Promise<readonly Aftermath[]> {
  const tools = await debianTools();
  await using lab = await SwarmLab.create(tools);
  const push = async (repository: string, recipe: ImageRecipe): Promise<Pushed> => {
    const image = await buildImage(recipe, cacheDir());
    return { image, ref: await lab.push(image, repository) };
  };
  // As packaged, it starts in half the time.
  const product = join(lab.hub.dir, 'product');
  await bundle(product);
  const near = { seed: 'cut-near', size_bytes: 9_000_000, zstd: true, index: true };
  const images: CutImages = {
    near: await push('near', near),
    next: await push('next', { ...near, version: 2 }),
    far: await push('far', { seed: 'cut-far', size_bytes: 7_000_000 }),
    half: await push('half', { seed: 'cut-half', size_bytes: 12_000_000, layers: 3 }),
    many: [
      await push('many1', { seed: 'cut-many1', size_bytes: 800_000, layers: 8, even: true }),
      await push('many2', { seed: 'cut-many2', size_bytes: 1_600_000, layers: 8, even: true }),
      await push('many3', { seed: 'cut-many3', size_bytes: 3_200_000, layers: 8, even: true }),
    ],
    tiny: await push('tiny', { seed: 'cut-tiny', size_bytes: 100_000, layers: 2 }),
  };
  const steady = await lab.addNode('steady', { seeds: [images.near.image] });
  const mortal = await lab.addNode('mortal', { seeds: [images.half.image] });
  const command = [process.execPath, join(product, 'main.js')];
  const recording = await record(
    { lab, images, steady, mortal },
    { name: 'cut', product: command, ...options },
  );
  const found: Aftermath[] = [];
  const log = recording.disk.entries();
  const promises = blobPromises(recording.disk, log, recording.database);
  // Else the instants below would be any.
  assert.deepEqual(promises.known.toSorted(), recording.known.toSorted());
  const timeline = { log, told: recording.told, promises: promises.instants };
  for (const cut of instants(timeline, options))
    found.push(await aftermathOf(recording, cut, allOf(images)));
  return found;
}
