// A writer that uses a puller's ref is taken for a puller: what that means for a pipe, and the ways out.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, suite, test } from 'node:test';
import { blobPath, buildImage } from '../fixtures/image.ts';
import type { TestImage } from '../fixtures/image.ts';
import { cacheDir, debianTools } from './lab/debian-packages.ts';
import type { ContainerdLine } from './lab/debian-packages.ts';
import { assertHonestDisk } from './pull-bench.ts';
import { NOTHING_LEFT, SwarmLab, blobsOf, hostReason, leftBehind } from './swarm-lab.ts';
import type { SwarmNode } from './swarm-lab.ts';

const skip = hostReason() ?? false;
const LINES = ['1.6', '1.7', '2.1'] as const satisfies readonly ContainerdLine[];

type Way = {
  readonly from?: 'pipe' | 'file';
  readonly ref?: string;
  /** 0: the writer does not say. */
  readonly size?: number;
};

suite('content that is piped in', { skip, timeout: 300_000 }, () => {
  const stack = new AsyncDisposableStack();
  const nodes = new Map<ContainerdLine, SwarmNode>();
  let lab: SwarmLab;
  let image: TestImage;
  let holder: SwarmNode;

  before(async () => {
    const tools = await debianTools();
    const { busybox } = tools;
    const recipe = { seed: 'doctor', size_bytes: 3_000_000, zstd: true, index: true, busybox };
    image = await buildImage(recipe, cacheDir());
    lab = stack.use(await SwarmLab.create(tools));
    holder = await lab.addNode('holder', { seeds: [image] });
    for (const line of LINES) {
      const config = { store: ['cache_max_bytes = 0'] };
      nodes.set(line, await lab.addNode(`p${line.replace('.', '')}`, { line, config }));
    }
  });

  after(async () => {
    await stack.disposeAsync();
    assert.deepEqual(await leftBehind(), NOTHING_LEFT);
  });

  for (const line of LINES) {
    const node = () => nodes.get(line)!;
    const ingest = async (
      layer: TestImage['config'],
      { from = 'pipe', ref = `layer-${layer.digest}`, size = layer.size }: Way,
    ) => {
      const { containerd, host } = node();
      await lab.meshed(node(), {
        peers: LINES.length,
        holders: [holder],
        blobs: blobsOf(image).length,
      });
      const ctr = join(containerd.package.bin_dir, 'ctr');
      const write = `"$1" -a "$2" content ingest ${size === 0 ? '' : `--expected-size ${size}`} --expected-digest "$3" "$4"`;
      const script = from === 'pipe' ? `cat "$5" | ${write}` : `${write} < "$5"`;
      const { digest } = layer;
      const argv = [ctr, containerd.socket, digest, ref, blobPath(image, digest)];
      const { code, stderr } = await host.tryRun(['sh', '-c', script, 'sh', ...argv]);
      await assertHonestDisk(node());
      return { code, stderr };
    };

    test(`${line}: under a puller's ref a pipe cannot skip what a peer has sent, and nothing wrong is kept`, async () => {
      const { code, stderr } = await ingest(image.layers[1]!, {});
      assert.notEqual(code, 0);
      assert.match(stderr, /illegal seek/);
      assert.deepEqual(await node().containerd.contentList(), []);
    });

    for (const [way, how, index] of [
      ['another ref', { ref: 'my-layer' }, 2],
      ['no size', { size: 0 }, 3],
      ['a file', { from: 'file' }, 4],
    ] as const satisfies readonly (readonly [string, Way, number])[]) {
      test(`${line}: with ${way} it goes in`, async () => {
        const layer = image.layers[index]!;
        const { code, stderr } = await ingest(layer, how);
        assert.equal(code, 0, stderr);
        assert.ok((await node().containerd.contentList()).includes(layer.digest));
      });
    }
  }
});
