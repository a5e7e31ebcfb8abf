// Who gives what when several could: a holder near by before holders far away, and one holder of two images at once.
import assert from 'node:assert/strict';
import { afterEach, beforeEach, suite, test } from 'node:test';
import { buildImage, layerBytes } from '../fixtures/image.ts';
import { cacheDir, debianTools } from './lab/debian-packages.ts';
import type { DebianTools } from './lab/debian-packages.ts';
import { assertRight, midPull } from './pull-bench.ts';
import type { Pushed } from './pull-bench.ts';
import { NOTHING_LEFT, SwarmLab, blobsOf, hostReason, leftBehind } from './swarm-lab.ts';
import type { NodeOptions, SwarmNode } from './swarm-lab.ts';

const LINE = '2.1';

suite('who is asked', { skip: hostReason(), timeout: 600_000 }, () => {
  let tools: DebianTools;
  let lab: SwarmLab;

  beforeEach(async () => {
    tools = await debianTools();
    lab = await SwarmLab.create(tools);
  });
  afterEach(async () => {
    await lab[Symbol.asyncDispose]();
    assert.deepEqual(await leftBehind(), NOTHING_LEFT);
  });

  async function pushed(seed: string, size_bytes: number): Promise<Pushed> {
    const { busybox } = tools;
    const image = await buildImage({ seed, size_bytes, busybox }, cacheDir());
    return { image, ref: await lab.push(image, seed) };
  }

  /** A puller beside a containerd, connected to the holders, who have all the blobs of these images. */
  async function puller(
    holders: readonly SwarmNode[],
    images: readonly Pushed[],
    config: NonNullable<NodeOptions['config']> = {},
  ): Promise<SwarmNode> {
    const node = await lab.addNode('puller', { line: LINE, config });
    const blobs = new Set(images.flatMap(({ image }) => blobsOf(image).map((b) => b.digest))).size;
    await lab.meshed(node, { peers: holders.length, holders, blobs });
    await lab.registry.forget();
    return node;
  }

  test('one near holder sends at least 95 % of the bytes although three far ones are idle', async (t) => {
    const app = await pushed('zones', 96_000_000);
    const zone = (name: string): NonNullable<NodeOptions['config']> => ({
      swarm: [`zone = "${name}"`],
    });
    const seeds = [app.image];
    const near = await lab.addNode('near', { seeds, config: zone('here') });
    const far: SwarmNode[] = [];
    for (const name of ['far1', 'far2', 'far3']) {
      far.push(await lab.addNode(name, { seeds, config: zone('there') }));
    }
    // The near one is quick enough, and slower than the far ones could be.
    await near.host.shape({ rate_bits: 200_000_000 });
    const node = await puller([near, ...far], [app], zone('here'));
    const counters = async (): Promise<number[]> =>
      Promise.all([near, ...far, { host: lab.hub }].map(({ host }) => host.sentBytes()));
    const before = await counters();
    await node.containerd.pull(app.ref);
    const sent = (await counters()).map((bytes, i) => bytes - before[i]!);
    const told = `near, far, far, far, registry: ${sent.join(', ')} of ${layerBytes(app.image)}`;
    t.diagnostic(told);
    const [from_near, ...others] = sent as [number, ...number[]];
    const all = others.reduce((sum, bytes) => sum + bytes, from_near);
    assert.ok(from_near >= 0.95 * all, told);
    assert.deepEqual(await lab.registry.layerGets(app.image), []);
    await assertRight(node, app, 'default');
  });

  test('one of three holders falls silent in mid pull: the others give the rest, not the registry', async (t) => {
    const app = await pushed('three', 64_000_000);
    const seeds = [app.image];
    const holders: SwarmNode[] = [];
    for (const name of ['x', 'y', 'z']) holders.push(await lab.addNode(name, { seeds }));
    const node = await puller(holders, [app]);
    await node.host.shape({ rate_bits: 100_000_000 });
    const started_ms = performance.now();
    const pull = node.containerd.pull(app.ref);
    pull.catch(() => undefined);
    await midPull(node, app);
    await holders[0]!.host.silence();
    await pull;
    const elapsed_ms = performance.now() - started_ms;
    const line_ms = (layerBytes(app.image) * 8) / 100_000;
    t.diagnostic(`the pull took ${elapsed_ms.toFixed(0)} ms, the line needs ${line_ms.toFixed(0)}`);
    assert.deepEqual(await lab.registry.layerGets(app.image), []);
    await assertRight(node, app, 'default');
  });

  for (const transport of ['quic', 'tcp'] as const) {
    test(`over ${transport}: a second image comes from the holder that is busy sending the first one`, async (t) => {
      const [first, second] = [await pushed('one', 48_000_000), await pushed('two', 20_000_000)];
      const config: NonNullable<NodeOptions['config']> = {
        swarm: [`transports = ["${transport}"]`],
      };
      const holder = await lab.addNode('holder', { seeds: [first.image, second.image], config });
      const node = await puller([holder], [first, second], config);
      await node.host.shape({ rate_bits: 40_000_000 });
      const pull = node.containerd.pull(first.ref);
      pull.catch(() => undefined);
      await midPull(node, first);
      const { elapsed_ms } = await node.containerd.pull(second.ref);
      t.diagnostic(`the second image took ${elapsed_ms.toFixed(0)} ms`);
      await pull;
      for (const app of [first, second]) {
        assert.deepEqual(await lab.registry.layerGets(app.image), []);
        await assertRight(node, app, 'default');
      }
    });
  }
});
