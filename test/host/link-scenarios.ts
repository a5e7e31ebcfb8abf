// Pulls over links that fail without a word, and beside a containerd that is killed. How long each took is told, not judged.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import { layerBytes } from '../fixtures/image.ts';
import { WireMeter, assertRight, midPull, pullRight, rateFor } from './pull-bench.ts';
import type { PullBench } from './pull-bench.ts';
import type { SwarmNode } from './swarm-lab.ts';
import { untilTrue } from './wait.ts';

/** Registers the scenarios; they use one bench one after the other and leave its links as they were. */
export function linkScenarios(bench: () => PullBench): void {
  test('the only holder falls silent in mid pull and the registry gives the rest', async (t) => {
    const { lab, a, b, app } = bench();
    await bench().ready();
    await a.host.shape({ rate_bits: rateFor(app, 5) });
    const pull = b.containerd.pull(app.ref);
    pull.catch(() => undefined);
    try {
      await midPull(b, app);
      await a.host.silence();
      const silent_ms = performance.now();
      await pull;
      tell(t, 'from the silence to the end of the pull', silent_ms);
      await assertRight(b, app, 'default');
      assert.notEqual(await lab.registry.layerBytes(app.image), 0);
    } finally {
      await a.host.plug();
      await a.host.shape({});
      // Both would wait out their backoff first.
      await a.daemon.reborn();
      await lab.meshed(b, { peers: 1 });
    }
  });

  test('where UDP was blocked from the start, TCP carries the whole image', async (t) => {
    const { lab, a, b, app } = bench();
    await bench().ready();
    try {
      for (const { host } of [a, b]) await host.dropUdp(true);
      // Only fresh connections are a start.
      for (const { daemon } of [a, b]) await daemon.restart();
      const started_ms = performance.now();
      await bench().ready();
      tell(t, 'from the start of the daemons to a full mesh', started_ms);
      const { swarm } = await b.daemon.status();
      assert.deepEqual(
        swarm?.peers.map((peer) => peer.transport),
        ['tcp'],
      );
      const wire = await WireMeter.start(bench());
      const { elapsed_ms } = await b.containerd.pull(app.ref);
      t.diagnostic(`the pull took ${elapsed_ms.toFixed(0)} ms`);
      await assertRight(b, app, 'default');
      await bench().noLayerGets(app);
      await wire.allFromHolder(layerBytes(app.image));
    } finally {
      for (const { host } of [a, b]) await host.dropUdp(false);
      for (const { daemon } of [a, b]) await daemon.restart();
      await lab.meshed(b, { peers: 1 });
    }
  });

  test('a pull over a link with 40 ms each way is right and comes from the peer', async (t) => {
    const { a, b, app } = bench();
    await bench().ready();
    await a.host.shape({ delay_ms: 40 });
    try {
      const wire = await WireMeter.start(bench());
      const { elapsed_ms } = await b.containerd.pull(app.ref);
      t.diagnostic(`the pull took ${elapsed_ms.toFixed(0)} ms`);
      await assertRight(b, app, 'default');
      t.diagnostic(await wire.allFromHolder(layerBytes(app.image)));
      await bench().noLayerGets(app);
    } finally {
      await a.host.shape({});
    }
  });

  test('containerd is killed in mid pull, and after its restart the image is pulled right', async () => {
    const { a, b, app } = bench();
    await bench().ready();
    await a.host.shape({ rate_bits: rateFor(app, 5) });
    const first = b.containerd.pull(app.ref);
    first.catch(() => undefined);
    await midPull(b, app);
    const { process } = b.containerd;
    process.kill('SIGKILL');
    await process.exited;
    await assert.rejects(first);
    await b.containerd.start();
    await a.host.shape({});
    await pullRight(b, app, 'ctr');
    await bench().noLayerGets(app);
    await noTransfers(b);
  });
}

/** Nothing of an earlier attempt goes on behind the back of everybody. */
async function noTransfers({ daemon }: SwarmNode): Promise<void> {
  await untilTrue('no transfer under way', async () => {
    const { transfers } = await daemon.status();
    return transfers.every((transfer) => transfer.state !== 'fetching');
  });
}

function tell(t: TestContext, what: string, since_ms: number): void {
  t.diagnostic(`${what}: ${(performance.now() - since_ms).toFixed(0)} ms`);
}
