// Pulls as they go on a healthy day, and after: full peer, no peer, containers, garbage collection, two askers at once.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { layerBytes } from '../fixtures/image.ts';
import {
  WireMeter,
  assertRight,
  blobFiles,
  forgetImages,
  pullRight,
  rateFor,
  spaceOf,
  trafficOf,
} from './pull-bench.ts';
import type { Client, PullBench } from './pull-bench.ts';
import { assertImageReadable } from './lab/content-oracle.ts';
import { blobsOf } from './swarm-lab.ts';
import { untilTrue } from './wait.ts';

/** Manifests and configs may come from either side; they are far smaller than this. */
const SMALL_BYTES = 100_000;
/** Most that a metadata write may take while layers arrive, median, in ms. */
const METADATA_WRITE_MS = 100;
const PROBES = 15;

/** Registers the scenarios of one client; they use one bench one after the other. */
export function pullScenarios(client: Client, bench: () => PullBench): void {
  test(`${client}: a full peer gives every layer and the registry none`, async (t) => {
    const { b, app } = bench();
    await bench().ready();
    const before = await trafficOf(b);
    const wire = await WireMeter.start(bench());
    await pullRight(b, app, client);
    t.diagnostic(await wire.allFromHolder(layerBytes(app.image)));
    await bench().noLayerGets(app);
    const peers = (await trafficOf(b)).peers - before.peers;
    const surplus = peers - layerBytes(app.image);
    assert.ok(surplus >= 0 && surplus < SMALL_BYTES, `${peers} bytes came from peers`);
  });

  test(`${client}: a container of the pulled image prints its greeting`, async () => {
    const { b, app } = bench();
    await pullRight(b, app, client);
    assert.equal(await runOnce(bench(), client), `${app.image.greeting}\n`);
  });

  test(`${client}: after image rm containerd's collection empties list and disk, and a later pull is right`, async () => {
    const { b, app } = bench();
    await pullRight(b, app, client);
    assert.notEqual((await blobFiles(b)).length, 0);
    if (client === 'cri') await b.containerd.cri.removeImage(app.ref);
    await b.containerd.clear();
    await untilTrue('an empty content list', async () => {
      return (await b.containerd.contentList(spaceOf(client))).length === 0;
    });
    await untilTrue('an empty blob directory', async () => (await blobFiles(b)).length === 0);
    assert.equal((await b.daemon.status()).blobs?.ownedCount, 0);
    await bench().ready();
    await pullRight(b, app, client);
    await bench().noLayerGets(app);
  });

  test(`${client}: an image nobody has comes from the registry as without us`, async () => {
    const { lab, b, app, solo } = bench();
    await bench().ready();
    await pullRight(b, solo, client);
    const gets = await lab.registry.layerGets(solo.image);
    // The base layer with busybox is everybody's.
    const known = app.image.layers.map((layer) => layer.digest);
    const own = solo.image.layers.filter((layer) => !known.includes(layer.digest));
    assert.deepEqual(
      gets.map((get) => `${get.status} ${get.bytes}`).toSorted(),
      own.map((layer) => `200 ${layer.size}`).toSorted(),
    );
  });

  test(`${client}: two namespaces at once are both right with one transfer per layer`, async () => {
    const { a, b, app } = bench();
    await bench().ready();
    await a.host.shape({ rate_bits: rateFor(app, 3) });
    const wire = await WireMeter.start(bench());
    const other = 'b';
    await Promise.all([
      b.containerd.pull(app.ref, { client, ...(client === 'ctr' ? { namespace: 'a' } : {}) }),
      b.containerd.pull(app.ref, { client: 'ctr', namespace: other }),
    ]);
    await assertRight(b, app, client === 'ctr' ? 'a' : 'k8s.io');
    await assertRight(b, app, other);
    await bench().noLayerGets(app);
    await wire.allFromHolder(layerBytes(app.image));
  });

  test(`${client}: while eight layers arrive slowly an unrelated metadata write stays quick`, async (t) => {
    const { a, b, eight } = bench();
    await bench().ready();
    await a.host.shape({ rate_bits: rateFor(eight, 16) });
    const pull = b.containerd.pull(eight.ref, { client });
    // Awaited below; a failure before that is seen there.
    pull.catch(() => undefined);
    const arriving = async (): Promise<number> => {
      const { transfers } = await b.daemon.status();
      return transfers.filter((transfer) => transfer.state === 'fetching').length;
    };
    await untilTrue('eight layers on their way', async () => (await arriving()) >= 8);
    const took: number[] = [];
    for (let i = 0; i < PROBES; i++) took.push(await b.containerd.metadataWriteMs());
    assert.ok((await arriving()) >= 6, 'the layers were there before the probes were over');
    await a.host.shape({});
    await pull;
    await assertRight(b, eight, spaceOf(client));
    await bench().noLayerGets(eight);
    took.sort((x, y) => x - y);
    const median = took[Math.floor(took.length / 2)]!;
    t.diagnostic(
      `metadata write, client start included: median ${median.toFixed(0)} ms, longest ${took.at(-1)!.toFixed(0)} ms of ${PROBES}`,
    );
    assert.ok(median < METADATA_WRITE_MS, `median ${median} ms`);
  });

  test(`${client}: all images stay intact when the built-in plugin takes over and gives back`, async () => {
    const { b, app, solo } = bench();
    const { containerd, daemon } = b;
    await bench().ready();
    await pullRight(b, app, client);
    const before = (await containerd.contentList(spaceOf(client))).toSorted();
    try {
      await containerd.stop();
      await daemon.stop();
      containerd.useStore({ kind: 'builtin' });
      await containerd.start();
      assert.equal(await containerd.contentPlugin(), 'content');
      assert.deepEqual((await containerd.contentList(spaceOf(client))).toSorted(), before);
      assert.equal(await runOnce(bench(), client), `${app.image.greeting}\n`);
      await containerd.pull(solo.ref, { client });
      await containerd.stop();
      await daemon.restart();
      containerd.useStore({ kind: 'proxy', address: daemon.socket });
      await containerd.start();
      assert.equal(await containerd.contentPlugin(), 'layerswarm');
      // A daemon that loads its swarm on a loaded machine may miss the second that 1.6 gives its first handshake.
      await untilTrue('a door that containerd is connected to', async () => {
        await assertImageReadable(b, app.image, spaceOf(client));
        return true;
      });
      await assertRight(b, app, spaceOf(client));
      await assertRight(b, solo, spaceOf(client));
      assert.equal(await runOnce(bench(), client), `${app.image.greeting}\n`);
      const owned = (await daemon.status()).blobs?.ownedCount ?? 0;
      const both = new Set([...blobsOf(app.image), ...blobsOf(solo.image)].map((d) => d.digest));
      assert.ok(owned >= both.size, `${owned} blobs owned, ${both.size} pulled`);
    } finally {
      // Later scenarios need both as they were, also when this one failed half way.
      if (!daemon.running) await daemon.restart();
      containerd.useStore({ kind: 'proxy', address: daemon.socket });
      if ((await containerd.contentPlugin().catch(() => undefined)) !== 'layerswarm')
        await containerd.restart();
    }
    await forgetImages(b);
  });
}

/** Runs `app` on B once, with the client's own means; resolves to what it printed. */
async function runOnce({ b, app }: PullBench, client: Client): Promise<string> {
  const { containerd } = b;
  if (client === 'ctr') return containerd.runContainer(app.ref);
  // After a start containerd reads its images once more, in the background.
  await untilTrue('the image known to CRI', async () => {
    return (await containerd.cri.imageStatus(app.ref)) !== undefined;
  });
  const pod = await containerd.cri.runPod('run', containerd.dir);
  try {
    const id = await containerd.cri.startContainer(pod, 'app', app.ref);
    await containerd.cri.containerExit(id);
    return await containerd.cri.containerOutput(pod, 'app');
  } finally {
    await containerd.cri.removePod(pod);
  }
}
