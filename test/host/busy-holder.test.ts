// More hosts pull from one holder than it can serve at once, or over a slow link. It is busy, not dead: the registry is asked for nothing, and nothing is sent twice.
import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import type { TestContext } from 'node:test';
import { buildImage, layerBytes } from '../fixtures/image.ts';
import { cacheDir, debianTools } from './lab/debian-packages.ts';
import { assertRight } from './pull-bench.ts';
import type { Pushed } from './pull-bench.ts';
import { NOTHING_LEFT, SwarmLab, blobsOf, hostReason, leftBehind } from './swarm-lab.ts';
import type { SwarmNode } from './swarm-lab.ts';

const LINE = '1.7';
const MIB = 1024 * 1024;
/** Bytes that leave all hosts for a byte that somebody needs, at most. */
const WASTE = 1.05;
/** Lists, manifests and configs. */
const SMALL_BYTES = 200_000;
const skip = hostReason() ?? false;

type Case = {
  readonly name: string;
  readonly pullers: number;
  readonly size_bytes: number;
  /** Default: as a common image has them. */
  readonly layers?: number;
  /** Lines of the holder's `[swarm]` section. */
  readonly holder: readonly string[];
  readonly transports: string;
  /** Of the holder's link alone. */
  readonly holder_bits?: number;
};

const limited = { holder: [`max_upload_bytes_per_second = ${2 * MIB}`], size_bytes: 12_000_000 };
const cases: readonly Case[] = [
  { name: 'limited to 2 MiB/s, one puller', ...limited, pullers: 1, transports: '"quic", "tcp"' },
  {
    name: 'limited to 2 MiB/s, three pullers',
    ...limited,
    pullers: 3,
    transports: '"quic", "tcp"',
  },
  {
    name: 'behind a link of 4 Mbit/s over TCP',
    holder: [],
    pullers: 1,
    size_bytes: 4_000_000,
    // Small layers would not be waited for over such a link.
    layers: 1,
    transports: '"tcp"',
    holder_bits: 4e6,
  },
];

for (const one of cases) {
  suite(`a busy holder: ${one.name}`, { skip, timeout: 300_000 }, () => {
    const stack = new AsyncDisposableStack();
    let lab: SwarmLab;
    let holder: SwarmNode;
    let app: Pushed;
    const pullers: SwarmNode[] = [];

    before(async () => {
      const tools = await debianTools();
      const { size_bytes, transports, layers } = one;
      lab = stack.use(await SwarmLab.create(tools));
      const busybox = tools.busybox;
      const recipe = { seed: 'busy', size_bytes, busybox, ...(layers !== undefined && { layers }) };
      const image = await buildImage(recipe, cacheDir());
      app = { image, ref: await lab.push(image, 'busy') };
      const swarm = [`transports = [${transports}]`];
      const config = { swarm: [...swarm, ...one.holder] };
      holder = await lab.addNode('holder', { config, seeds: [image] });
      for (let i = 1; i <= one.pullers; i++) {
        pullers.push(await lab.addNode(`p${i}`, { line: LINE, config: { swarm } }));
      }
      for (const puller of pullers) {
        await lab.meshed(puller, {
          peers: one.pullers,
          holders: [holder],
          blobs: blobsOf(image).length,
        });
      }
      if (one.holder_bits !== undefined) await holder.host.shape({ rate_bits: one.holder_bits });
    });

    after(async () => {
      await stack.disposeAsync();
      assert.deepEqual(await leftBehind(), NOTHING_LEFT);
    });

    test('all pull at once, nothing of the layers comes from the registry, and little is sent in vain', async (t) => {
      const started_ms = performance.now();
      await Promise.all(pullers.map(({ containerd }) => containerd.pull(app.ref)));
      t.diagnostic(`all had it after ${(performance.now() - started_ms).toFixed(0)} ms`);
      const stalls = await tell(t, lab);
      for (const puller of pullers) await assertRight(puller, app, 'default');
      const gets = await lab.registry.layerGets(app.image);
      const asked = gets.map((get) => `${get.status} ${get.bytes} of ${get.path.slice(-64, -52)}`);
      assert.deepEqual(asked, [], 'layers asked of the registry');
      const useful = pullers.length * layerBytes(app.image);
      const uploaded = await total(lab, 'layerswarm_swarm_uploaded_bytes_total');
      const most = WASTE * useful + pullers.length * SMALL_BYTES;
      assert.ok(uploaded <= most, `${uploaded} bytes left the hosts for ${useful}`);
      assert.equal(stalls, 0, 'a holder that moves looked dead');
      for (const { daemon } of lab.nodes) {
        const { swarm } = await daemon.status();
        assert.deepEqual(swarm?.bans, []);
      }
    });
  });
}

async function total(lab: SwarmLab, name: string, labels = ''): Promise<number> {
  const values = await Promise.all(lab.nodes.map(({ daemon }) => daemon.metric(name, labels)));
  return values.reduce((sum, value) => sum + value, 0);
}

/** Tells people what the hosts say of it; resolves to the stalls that they saw. */
async function tell(t: TestContext, lab: SwarmLab): Promise<number> {
  const busy = await total(lab, 'layerswarm_swarm_requests_served_total', 'status="busy"');
  const stalls = await total(lab, 'layerswarm_pull_stalls_total');
  const twice = await total(lab, 'layerswarm_pull_hedges_total');
  const uploaded = await total(lab, 'layerswarm_swarm_uploaded_bytes_total');
  t.diagnostic(
    `${uploaded} bytes left, ${busy} times busy, ${stalls} stalls, ${twice} pieces asked for twice`,
  );
  return stalls;
}
