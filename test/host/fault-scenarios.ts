// Pulls that something happens to: the holder dies, clients give up, the daemon is killed.
import assert from 'node:assert/strict';
import { readFile, readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { layerBytes } from '../fixtures/image.ts';
import { PIECE_BYTES } from '../../src/piece/layout.ts';
import {
  WireMeter,
  assertRight,
  midPull,
  pullOnceConnected,
  pullRight,
  rateFor,
  spaceOf,
  trafficOf,
} from './pull-bench.ts';
import type { Client, PullBench, Pushed } from './pull-bench.ts';
import type { SwarmNode } from './swarm-lab.ts';
import { untilTrue } from './wait.ts';

/** Pieces under way when a client or holder goes: they may have to come again. */
const IN_FLIGHT_BYTES = 16 * PIECE_BYTES;

/** Registers the scenarios of one client; they use one bench one after the other. */
export function faultScenarios(client: Client, bench: () => PullBench): void {
  test(`${client}: the only holder dies in mid pull and the registry gives exactly the rest`, async () => {
    const { lab, a, b, app } = bench();
    await bench().ready();
    const before = await trafficOf(b);
    await a.host.shape({ rate_bits: rateFor(app, 5) });
    const pull = b.containerd.pull(app.ref, { client });
    pull.catch(() => undefined);
    await midPull(b, app);
    await a.daemon.crash();
    try {
      await pull;
      await assertRight(b, app, spaceOf(client));
      const gets = await lab.registry.layerGets(app.image);
      const resumed = gets.filter((get) => get.status === 206);
      assert.notEqual(resumed.length, 0, 'no layer was resumed with a Range request');
      for (const layer of app.image.layers) {
        const mine = gets.filter((get) => get.path.endsWith(layer.digest));
        assert.ok(mine.length <= 1, `${mine.length} requests for one layer`);
        const [get] = mine;
        if (get === undefined) continue;
        const given = layer.size - get.bytes;
        assert.equal(get.status, given > 0 ? 206 : 200);
        assert.equal(given % PIECE_BYTES, 0, `${given} bytes of ${layer.digest} were given`);
      }
      // What containerd wrote to us is what it got from the registry: nothing came twice, nothing was left out.
      const written = (await trafficOf(b)).written - before.written;
      const fetched = await lab.registry.layerBytes(app.image);
      assert.ok(
        written >= fetched && written < fetched + 100_000,
        `${written} written, ${fetched} fetched`,
      );
    } finally {
      await a.daemon.reborn();
    }
  });

  test(`${client}: a cancelled pull goes on in the background and the retry joins it`, async () => {
    const { a, b, app } = bench();
    await bench().ready();
    const wire = await WireMeter.start(bench());
    await a.host.shape({ rate_bits: rateFor(app, 5) });
    const client_gone = new AbortController();
    const first = b.containerd.pull(app.ref, { client, signal: client_gone.signal });
    first.catch(() => undefined);
    await midPull(b, app);
    client_gone.abort();
    await assert.rejects(first);
    await a.host.shape({});
    await pullRight(b, app, client);
    await bench().noLayerGets(app);
    await wire.allFromHolder(layerBytes(app.image), IN_FLIGHT_BYTES);
  });

  test(`${client}: the daemon is killed in mid pull, and after its restart a retry is right`, async () => {
    const { lab, a, b, app } = bench();
    await bench().ready();
    await a.host.shape({ rate_bits: rateFor(app, 5) });
    const gone = new AbortController();
    const first = b.containerd.pull(app.ref, { client, signal: gone.signal });
    first.catch(() => undefined);
    await midPull(b, app);
    await b.daemon.crash();
    // The first client must be gone before the daemon is back, or it goes on where the second one begins.
    gone.abort();
    await first.catch(() => undefined);
    await b.daemon.restart();
    await a.host.shape({});
    await lab.meshed(b, { peers: 1, holders: [a], blobs: 2 });
    await lab.registry.forget();
    await pullAgain(b, app, client);
    await bench().noLayerGets(app);
  });

  test(`${client}: the daemon is killed while the registry writes, and the retry resumes where it was`, async () => {
    const { lab, b, solo } = bench();
    await bench().ready();
    const large = solo.image.layers.reduce((most, layer) =>
      layer.size > most.size ? layer : most,
    );
    await lab.hub.shape({ rate_bits: rateFor(solo, 4) });
    try {
      const gone = new AbortController();
      const first = b.containerd.pull(solo.ref, { client, signal: gone.signal });
      first.catch(() => undefined);
      await untilTrue('bytes of the large layer on disk', async () => {
        return (await ingestBytes(b, large.size)) > large.size / 3;
      });
      await b.daemon.crash();
      const kept = await ingestBytes(b, large.size);
      gone.abort();
      await first.catch(() => undefined);
      await untilTrue('the end of the first requests', async () => {
        const gets = await lab.registry.layerGets(solo.image);
        return gets.some((get) => get.path.endsWith(large.digest));
      });
      await lab.registry.forget();
      await lab.hub.shape({});
      await b.daemon.restart();
      await pullAgain(b, solo, client);
      const gets = await lab.registry.layerGets(solo.image);
      const mine = gets.filter((get) => get.path.endsWith(large.digest));
      assert.deepEqual(
        mine.map((get) => [get.status, get.bytes]),
        [[206, large.size - kept]],
      );
    } finally {
      await lab.hub.shape({});
    }
  });
}

/** Pulls after a restart of the daemon and asserts that what containerd has then is exactly the image. */
async function pullAgain(b: SwarmNode, pushed: Pushed, client: Client): Promise<void> {
  await pullOnceConnected(b, pushed, client);
  await assertRight(b, pushed, spaceOf(client));
}

/** Size of the unfinished ingest that will be `total` bytes long; 0 when there is none. */
async function ingestBytes(node: SwarmNode, total: number): Promise<number> {
  const root = join(node.content_dir, 'ingest');
  for (const name of await readdir(root).catch(() => [])) {
    const wanted = await readFile(join(root, name, 'total'), 'utf8').catch(() => '');
    if (Number(wanted) === total) return (await stat(join(root, name, 'data'))).size;
  }
  return 0;
}
