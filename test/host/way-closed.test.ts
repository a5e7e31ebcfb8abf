// What a host does when the way to a peer closes without a word: real daemons, no containerd, a client of the content door.
import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import { parseDigest } from '../../src/oci/digest.ts';
import { ContentCalls, layerRef } from '../bench/content-calls.ts';
import { buildImage } from '../fixtures/image.ts';
import type { TestImage } from '../fixtures/image.ts';
import { cacheDir, debianTools } from './lab/debian-packages.ts';
import { NOTHING_LEFT, SwarmLab, hostReason, leftBehind } from './swarm-lab.ts';
import type { SwarmNode } from './swarm-lab.ts';
import { untilTrue } from './wait.ts';

/** From the moment a way closes to a ready peer over another one, in ms. */
const FOUND_AGAIN_MS = 5000;

suite('the way to a peer closes', { skip: hostReason() ?? false, timeout: 120_000 }, () => {
  const stack = new AsyncDisposableStack();
  let image: TestImage;
  let holder: SwarmNode;
  let puller: SwarmNode;

  before(async () => {
    const tools = await debianTools();
    const recipe = { seed: 'way', size_bytes: 24_000_000, zstd: false, index: false };
    image = await buildImage({ ...recipe, busybox: tools.busybox }, cacheDir());
    const lab = stack.use(await SwarmLab.create(tools));
    holder = await lab.addNode('holder', { seeds: [image] });
    puller = await lab.addNode('puller');
    await lab.meshed(puller, { peers: 1, holders: [holder], blobs: holder.seeded_blobs });
  });

  after(async () => {
    await stack.disposeAsync();
    assert.deepEqual(await leftBehind(), NOTHING_LEFT);
  });

  /** Transports over which the puller has a peer that is ready. */
  const ways = async (): Promise<string[]> => {
    const { swarm } = await puller.daemon.status();
    return (swarm?.peers ?? []).filter((p) => p.inventoryBlobs > 0).map((p) => p.transport);
  };

  test('UDP is blocked in mid pull: the peer is there again over TCP within 5 s', async (t) => {
    assert.deepEqual(await ways(), ['quic']);
    const layer = image.layers.toSorted((a, b) => b.size - a.size)[0]!;
    const blob = { digest: parseDigest(layer.digest), size_bytes: layer.size };
    await holder.host.shape({ rate_bits: (layer.size * 8) / 6 });
    using client = new ContentCalls(puller.daemon.socket);
    const write = client.write();
    await write.ask({ action: 'STAT', ref: layerRef(blob), total: blob.size_bytes });
    const waiting = write.ask({ action: 'STAT' });
    await untilTrue('a pull on its way', async () => {
      const { transfers } = await puller.daemon.status();
      return (transfers[0]?.receivedBytes ?? 0) > 2_000_000;
    });
    for (const { host } of [holder, puller]) await host.dropUdp(true);
    const closed_ms = performance.now();
    await untilTrue('a peer over TCP', async () => (await ways()).includes('tcp'), {
      deadline_ms: 60_000,
    });
    const waited_ms = performance.now() - closed_ms;
    t.diagnostic(`over TCP after ${waited_ms.toFixed(0)} ms`);
    const { offset } = await waiting;
    t.diagnostic(`${offset} of ${blob.size_bytes} bytes came from the peer`);
    await write.end();
    assert.ok(waited_ms <= FOUND_AGAIN_MS, `${waited_ms} ms`);
  });
});
