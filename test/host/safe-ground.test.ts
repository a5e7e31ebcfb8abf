// What the first version did wrong to a host, on real containerd: descriptors that run out at the worst moment, bits that flip, a
// containerd that goes back to its own store behind our back.
import assert from 'node:assert/strict';
import { readdir } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { afterEach, beforeEach, suite, test } from 'node:test';
import { PIECE_BYTES, pieceCount } from '../../src/piece/layout.ts';
import { buildImage, layerBytes } from '../fixtures/image.ts';
import type { TestImage } from '../fixtures/image.ts';
import { cacheDir, debianTools } from './lab/debian-packages.ts';
import type { DebianTools } from './lab/debian-packages.ts';
import { assertImageReadable } from './lab/content-oracle.ts';
import { midPull, rateFor, trafficOf } from './pull-bench.ts';
import type { Pushed } from './pull-bench.ts';
import { NOTHING_LEFT, SwarmLab, blobsOf, hostReason, leftBehind } from './swarm-lab.ts';
import type { SwarmNode } from './swarm-lab.ts';
import { untilTrue } from './wait.ts';

const LINE = '2.1';
const MIB = 1024 * 1024;
const LIAR = resolve(import.meta.dirname, 'liar.ts');

/** Changes one byte of a file on a host, as a failing disk does. */
async function flip(node: SwarmNode, path: string, offset: number): Promise<void> {
  const program = `
    const fs = require('node:fs'); const path = ${JSON.stringify(path)};
    const { atime, mtime } = fs.statSync(path);
    fs.chmodSync(path, 0o644);
    const fd = fs.openSync(path, 'r+'); const byte = Buffer.alloc(1);
    fs.readSync(fd, byte, 0, 1, ${offset}); byte[0] ^= 1; fs.writeSync(fd, byte, 0, 1, ${offset});
    fs.closeSync(fd); fs.chmodSync(path, 0o444); fs.utimesSync(path, atime, mtime);`;
  await node.host.run([process.execPath, '-e', program]);
}

function largest(image: TestImage): TestImage['layers'][number] {
  return image.layers.reduce((most, layer) => (layer.size > most.size ? layer : most));
}

const blobFile = (node: SwarmNode, digest: string): string =>
  join(node.content_dir, 'blobs/sha256', digest.slice('sha256:'.length));
const cacheFile = (node: SwarmNode, digest: string): string =>
  join(node.content_dir, '.layerswarm/cache/sha256', digest.slice('sha256:'.length));

/** The number the next descriptor would get: with that as its limit a process can open nothing. */
function lowestFree(open: readonly string[]): number {
  for (let fd = 0; ; fd++) if (!open.includes(String(fd))) return fd;
}

/** Soft limit of open files of a running process. */
async function limitFiles(node: SwarmNode, files: number): Promise<void> {
  await node.host.run(['prlimit', '--pid', String(node.daemon.pid), `--nofile=${files}:`]);
}

suite('the ground that a host stands on', { skip: hostReason() }, () => {
  let tools: DebianTools;
  let lab: SwarmLab;
  let image: TestImage;
  let pushed: Pushed;

  // Each in a network of its own: what one leaves behind is not the next one's.
  beforeEach(async () => {
    tools = await debianTools();
    const { busybox } = tools;
    image = await buildImage({ seed: 'ground', size_bytes: 48_000_000, busybox }, cacheDir());
    lab = await SwarmLab.create(tools);
    pushed = { image, ref: await lab.push(image, 'ground') };
  });
  afterEach(async () => {
    await lab[Symbol.asyncDispose]();
    assert.deepEqual(await leftBehind(), NOTHING_LEFT);
  });

  test('half a layer from a peer, the holder dies and no descriptor is free: right, or an error that the next pull heals', async () => {
    const a = await lab.addNode('a', { line: LINE });
    await a.containerd.pull(pushed.ref);
    for (const [round, free] of [0, 1, 2, 3, 5].entries()) {
      const b = await lab.addNode(`few${round}`, { line: LINE });
      await lab.meshed(b, {
        peers: 1,
        holders: [a],
        blobs: blobsOf(image).length,
      });
      await a.host.shape({ rate_bits: rateFor(pushed, 6) });
      const pull = b.containerd.pull(pushed.ref);
      pull.catch(() => undefined);
      await midPull(b, pushed);
      const open = await readdir(`/proc/${b.daemon.pid}/fd`);
      await limitFiles(b, lowestFree(open) + free);
      await a.daemon.crash();
      // What containerd writes now meets a daemon that can open nothing; whether the pull ends well is its affair.
      await new Promise((resolve) => void setTimeout(resolve, 1500));
      await limitFiles(b, 1024);
      const ended = await pull.then(
        () => true,
        () => false,
      );
      if (!ended) await b.containerd.pull(pushed.ref);
      await assertImageReadable(b, image);
      assert.equal(await b.containerd.runContainer(pushed.ref), `${image.greeting}\n`);
      assert.ok(b.daemon.running);
      await b.containerd.stop();
      await b.daemon.stop();
      await a.host.shape({});
      await a.daemon.restart();
    }
  });

  test('a holder is lost while pieces came out of order: those behind the gap are not fetched again by the next pull', async () => {
    const { busybox } = tools;
    const recipe = { seed: 'gap', size_bytes: 48_000_000, layers: 1, busybox };
    const one = await buildImage(recipe, cacheDir());
    const layer = largest(one);
    const [pieces, gap] = [pieceCount(layer.size), 3];
    assert.ok(pieces > 2 * gap, `${pieces} pieces`);
    const ref = await lab.push(one, 'gap');
    // Pieces 0 to 2 and 4 on come from these two and piece 3 never does; of two, one goes on while the other is stuck.
    const program = [process.execPath, '--disable-warning=ExperimentalWarning', LIAR, 'gap'];
    const stuck = [
      await lab.addNode('stuck1', { seeds: [one], program }),
      await lab.addNode('stuck2', { seeds: [one], program }),
    ];
    const b = await lab.addNode('puller', { line: LINE });
    const whole = await lab.addNode('whole', { seeds: [one] });
    await whole.daemon.stop();
    await lab.meshed(b, { peers: 2 });
    await lab.heldByAll(b, blobsOf(one).length);

    // The registry takes long enough for the rest that the client's patience ends first.
    await lab.hub.shape({ rate_bits: 8_000_000 });
    const gone = new AbortController();
    const first = b.containerd.pull(ref, { signal: gone.signal });
    first.catch(() => undefined);
    // All but the gap and what stands in line behind it at each of the two.
    await untilTrue('pieces behind the gap', async () => {
      return (await trafficOf(b)).peers > (pieces - 3) * PIECE_BYTES;
    });
    for (const node of stuck) await node.daemon.crash();
    await untilTrue('containerd writing what comes after the prefix', async () => {
      return (await trafficOf(b)).written > MIB;
    });
    gone.abort();
    await assert.rejects(first);
    const given = new RegExp(`"bytes":${gap * PIECE_BYTES},"outcome":"prefix"`);
    assert.match(await b.daemon.log(), given);

    await whole.daemon.restart();
    await lab.meshed(b, { peers: 1, holders: [whole], blobs: blobsOf(one).length });
    await untilTrue('the end of the first requests', async () => {
      return (await lab.registry.layerGets(one)).length > 0;
    });
    await lab.registry.forget();
    const before = await whole.host.sentBytes();
    await b.containerd.pull(ref);
    const sent = (await whole.host.sentBytes()) - before;
    await assertImageReadable(b, one);
    assert.equal(await b.containerd.runContainer(ref), `${one.greeting}\n`);
    assert.deepEqual(await lab.registry.layerGets(one), []);
    // What containerd was given comes again, for the whole is hashed from its beginning, and what had not come: three pieces, or four when
    // one of those that did was asked for twice.
    const most = (gap + 4) * PIECE_BYTES * 1.1;
    assert.ok(most < (layer.size * 2) / 3);
    assert.ok(sent >= PIECE_BYTES && sent < most, `${sent} bytes sent of ${layer.size}`);
    await b.containerd.stop();
    await b.daemon.stop();
  });

  test('a byte flipped in a cached blob: the image is pulled again and right', async () => {
    const b = await lab.addNode('cached', { line: LINE });
    await b.containerd.pull(pushed.ref);
    await b.containerd.removeImage(pushed.ref);
    const { digest } = largest(image);
    await untilTrue('the layer in the cache', async () =>
      readdir(join(b.content_dir, '.layerswarm/cache/sha256')).then(
        (names) => names.length === blobsOf(image).length,
        () => false,
      ),
    );
    assert.deepEqual(await readdir(join(b.content_dir, 'blobs/sha256')), []);
    await flip(b, cacheFile(b, digest), 5 * MIB);
    await lab.registry.forget();
    await b.containerd.pull(pushed.ref);
    await assertImageReadable(b, image);
    const asked = (await lab.registry.layerGets(image)).map((get) => get.path.slice(-64));
    assert.deepEqual([...new Set(asked)], [digest.slice('sha256:'.length)]);
    assert.match(await b.daemon.log(), /blob is damaged and out of service/);
    await b.containerd.stop();
    await b.daemon.stop();
  });

  test('a byte flipped on a holder after the piece was served: it learns it, nobody bans it, and it heals', async () => {
    const a = await lab.addNode('holder', { line: LINE });
    await a.containerd.pull(pushed.ref);
    const b = await lab.addNode('first', { line: LINE });
    await lab.meshed(b, { peers: 1, holders: [a], blobs: blobsOf(image).length });
    await lab.registry.forget();
    await b.containerd.pull(pushed.ref);
    assert.deepEqual(await lab.registry.layerGets(image), []);
    const { digest } = largest(image);
    await flip(a, blobFile(a, digest), 5 * MIB);
    await b.daemon.stop();
    const c = await lab.addNode('second', { line: LINE });
    await lab.meshed(c, { peers: 1, holders: [a], blobs: blobsOf(image).length });
    await c.containerd.pull(pushed.ref);
    await assertImageReadable(c, image);
    const { swarm } = (await c.daemon.statusJson()) as {
      readonly swarm: { readonly bans: readonly unknown[] };
    };
    assert.deepEqual(swarm.bans, []);
    assert.match(await a.daemon.log(), /blob is damaged and out of service/);
    // C has it from the registry now and gives it back.
    await untilTrue('the holder whole again', async () => {
      return ((await a.daemon.status()).blobs?.lostCount ?? 1) === 0;
    });
    await assertImageReadable(a, image);
    for (const node of [a, c]) {
      await node.containerd.stop();
      await node.daemon.stop();
    }
  });

  test('containerd goes back to its own store behind our back, and the disk fills: nothing of its is removed', async () => {
    const disk_bytes = layerBytes(image) * 5;
    const floor = layerBytes(image);
    const b = await lab.addNode('unwired', {
      line: LINE,
      content_disk_bytes: disk_bytes,
      config: { store: [`disk_floor_bytes = ${floor}`] },
    });
    await b.containerd.pull(pushed.ref);
    await b.containerd.removeImage(pushed.ref);
    await untilTrue('the image in the cache', async () => {
      return ((await b.daemon.status()).blobs?.cacheCount ?? 0) === blobsOf(image).length;
    });
    await b.containerd.stop();
    b.containerd.useStore({ kind: 'builtin' });
    await b.containerd.start();
    await b.containerd.pull(pushed.ref);
    await b.host.run([
      'dd',
      'if=/dev/zero',
      `of=${join(b.content_dir, 'filler')}`,
      'bs=1M',
      `count=${Math.ceil((disk_bytes - 2.5 * floor) / MIB)}`,
    ]);
    await untilTrue('room made in the cache', async () => {
      return ((await b.daemon.status()).blobs?.cacheCount ?? Infinity) < blobsOf(image).length;
    });
    await assertImageReadable(b, image);
    assert.equal(await b.containerd.runContainer(pushed.ref), `${image.greeting}\n`);
    await b.containerd.stop();
    await b.daemon.stop();
  });
});
