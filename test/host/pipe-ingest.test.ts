// A writer that uses a puller's ref is taken for a puller: what that means for a pipe, and the ways out.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { suite, test } from 'node:test';
import { blobPath } from '../fixtures/image.ts';
import type { TestImage } from '../fixtures/image.ts';
import type { ContainerdLine } from './lab/debian-packages.ts';
import { assertHonestDisk } from './pull-bench.ts';
import { LITTLE, nodeOfEach, push, suiteLab } from './suite-lab.ts';
import { blobsOf, hostReason } from './swarm-lab.ts';
import type { SwarmLab, SwarmNode } from './swarm-lab.ts';

const skip = hostReason() ?? false;
const LINES = ['1.6', '1.7', '2.1'] as const satisfies readonly ContainerdLine[];

type Way = {
  readonly from?: 'pipe' | 'file';
  readonly ref?: string;
  /** 0: the writer does not say. */
  readonly size?: number;
};

suite('content that is piped in', { skip, timeout: 300_000 }, () => {
  let nodes: ReadonlyMap<ContainerdLine, SwarmNode>;
  let lab: SwarmLab;
  let image: TestImage;
  let holder: SwarmNode;

  suiteLab(async (made) => {
    lab = made;
    ({ image } = await push(lab, LITTLE));
    holder = await lab.addNode('holder', { seeds: [image] });
    nodes = await nodeOfEach(lab, LINES, { config: { store: ['cache_max_bytes = 0'] } });
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
