// The first version and this one on the same state, one after the other, and in one swarm at the same time. Real builds of both.
import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readdir, rm, symlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, suite, test } from 'node:test';
import { buildImage } from '../fixtures/image.ts';
import { assertImageReadable, readEveryBlob } from './lab/content-oracle.ts';
import { cacheDir, debianTools } from './lab/debian-packages.ts';
import { RUN_PREFIX } from './lab/residue.ts';
import { FIRST_VERSION, buildCheckout, buildCommit } from './lab/version-build.ts';
import { assertHonestDisk, assertRight, blobFiles, forgetImages } from './pull-bench.ts';
import type { Pushed } from './pull-bench.ts';
import { NOTHING_LEFT, SwarmLab, blobsOf, hostReason, leftBehind } from './swarm-lab.ts';
import type { SwarmNode } from './swarm-lab.ts';
import { untilTrue } from './wait.ts';

const LINE = '1.7';
const skip = hostReason() ?? false;

type Version = 'first' | 'this';

suite('the first version and this one', { skip, timeout: 600_000 }, () => {
  const stack = new AsyncDisposableStack();
  let lab: SwarmLab;
  let scratch: string;
  let app: Pushed;
  let small: Pushed;
  let third: Pushed;
  const programs = new Map<Version, string>();

  before(async () => {
    scratch = await mkdtemp(join(tmpdir(), `${RUN_PREFIX}versions-`));
    stack.defer(async () => rm(scratch, { recursive: true, force: true }));
    for (const name of ['first', 'this']) await mkdir(join(scratch, name));
    programs.set('first', await buildCommit(FIRST_VERSION, join(scratch, 'first')));
    programs.set('this', await buildCheckout(join(scratch, 'this')));
    const tools = await debianTools();
    lab = stack.use(await SwarmLab.create(tools));
    const push = async (seed: string, size_bytes: number): Promise<Pushed> => {
      const recipe = { seed, size_bytes, zstd: true, index: true, busybox: tools.busybox };
      const image = await buildImage(recipe, cacheDir());
      return { image, ref: await lab.push(image, seed) };
    };
    app = await push('solo', 24_000_000);
    small = await push('doctor', 3_000_000);
    third = await push('versions', 6_000_000);
  });

  after(async () => {
    await stack.disposeAsync();
    assert.deepEqual(await leftBehind(), NOTHING_LEFT);
  });

  /** A host whose daemon starts as `version`; `change` makes the next start another one. */
  const addNode = async (name: string, version: Version): Promise<SwarmNode> => {
    await choose(name, version);
    const main = join(scratch, name, 'main.js');
    const product = [process.execPath, '--disable-warning=ExperimentalWarning', main];
    return lab.addNode(name, { line: LINE, product });
  };
  const choose = async (name: string, version: Version): Promise<void> => {
    const link = join(scratch, name);
    await rm(link, { force: true });
    // The directory, so that the program finds what lies beside it.
    await symlink(join(programs.get(version)!, '..'), link);
  };
  const start = async (node: SwarmNode, version: Version): Promise<void> => {
    await choose(node.host.name, version);
    await node.daemon.restart();
    // containerd dials a store that was away anew after a second.
    await untilTrue('containerd reads again', async () => {
      return (await readEveryBlob(node.containerd)).length === 0;
    });
  };

  test('stopped in order: cache blobs move to their folder, and back on the first version nothing owned is lost', async () => {
    const node = await addNode('ordered', 'first');
    for (const { ref } of [app, small]) await node.containerd.pull(ref);
    await node.containerd.removeImage(small.ref);
    const cached = digestsOnly(small, [app]);
    assert.deepEqual(await marksOf(node), cached);
    assert.deepEqual(
      await blobFilesOf(node),
      digestsOf([app, small]),
      'as the first version had it',
    );
    await node.daemon.stop();

    await start(node, 'this');
    assert.deepEqual(await cacheFolderOf(node), cached);
    assert.deepEqual(await blobFilesOf(node), digestsOf([app]));
    assert.deepEqual(await marksOf(node), []);
    await assertWhole(node, [app]);
    await lab.registry.forget();
    await node.containerd.pull(small.ref);
    assert.deepEqual(await lab.registry.layerGets(small.image), [], 'the cache was of no use');
    await node.containerd.pull(third.ref);
    await node.containerd.removeImage(app.ref);
    assert.deepEqual(await cacheFolderOf(node), digestsOnly(app, [small, third]));
    await assertWhole(node, [small, third]);
    const { peerId } = (await node.daemon.status()).swarm!;
    await node.daemon.stop();

    await start(node, 'first');
    assert.equal(await node.daemon.peerId(), peerId);
    assert.deepEqual(await blobFilesOf(node), digestsOf([small, third]));
    await assertWhole(node, [small, third]);
    await node.containerd.pull(app.ref);
    await assertWhole(node, [app, small, third]);
    await node.containerd.removeImage(third.ref);
    await node.daemon.stop();

    // What the first version pulled anew lies in both places, and what it cached has marks again.
    await start(node, 'this');
    assert.deepEqual(await blobFilesOf(node), digestsOf([app, small]));
    await assertWhole(node, [app, small]);
    const { blobs } = await node.daemon.status();
    assert.equal(Number(blobs?.ownedCount), digestsOf([app, small]).length);
    assert.equal(Number(blobs?.lostCount), 0);
    await forgetImages(node);
  });

  test('killed: marks do not count, everything is owned, and the next garbage collection cleans up', async () => {
    const node = await addNode('killed', 'first');
    for (const { ref } of [app, small]) await node.containerd.pull(ref);
    await node.containerd.removeImage(small.ref);
    assert.deepEqual(await marksOf(node), digestsOnly(small, [app]));
    await node.daemon.crash();

    await start(node, 'this');
    assert.deepEqual(await marksOf(node), []);
    assert.deepEqual(await cacheFolderOf(node), []);
    assert.deepEqual(await blobFilesOf(node), digestsOf([app, small]));
    const { blobs } = await node.daemon.status();
    assert.equal(Number(blobs?.ownedCount), digestsOf([app, small]).length);
    await assertWhole(node, [app]);
    // containerd collects when something of its own was removed.
    await node.containerd.pull(third.ref);
    await node.containerd.removeImage(third.ref);
    await untilTrue('only owned blobs', async () => {
      return (await blobFilesOf(node)).length === digestsOf([app]).length;
    });
    assert.deepEqual(await blobFilesOf(node), digestsOf([app]));
    assert.deepEqual(
      await cacheFolderOf(node),
      [...new Set([...digestsOnly(small, [app]), ...digestsOnly(third, [app])])].toSorted(),
    );
    await assertWhole(node, [app]);

    // And the other way round: this one killed, the first one on its state.
    await node.daemon.crash();
    await start(node, 'first');
    assert.deepEqual(await blobFilesOf(node), digestsOf([app]));
    await node.containerd.pull(small.ref);
    await assertWhole(node, [app, small]);
    await node.daemon.stop();
  });

  test('both in one swarm give each other their blobs, and neither bans the other', async () => {
    for (const node of lab.nodes) await node.daemon.stop();
    const first = await addNode('mixfirst', 'first');
    const fresh = await addNode('mixthis', 'this');
    const ways = [
      [fresh, first, app],
      [first, fresh, third],
    ] as const;
    for (const [holder, puller, pushed] of ways) {
      await holder.containerd.pull(pushed.ref);
      const blobs = blobsOf(pushed.image).length;
      await lab.meshed(puller, { peers: 1, holders: [holder], blobs });
      await lab.registry.forget();
      await puller.containerd.pull(pushed.ref);
      assert.deepEqual(await lab.registry.layerGets(pushed.image), [], `from ${holder.host.name}`);
      await assertRight(puller, pushed, 'default');
      assert.equal(await puller.containerd.runContainer(pushed.ref), `${pushed.image.greeting}\n`);
    }
    for (const node of [first, fresh]) {
      const { swarm } = await node.daemon.status();
      assert.ok(swarm !== null);
      assert.deepEqual(swarm.bans, [], `bans of ${node.host.name}`);
      assert.equal(swarm.connectedPeers, 1);
    }
  });
});

/** Every byte that containerd promises is there, the images are right, and they run. */
async function assertWhole(node: SwarmNode, images: readonly Pushed[]): Promise<void> {
  assert.deepEqual(await readEveryBlob(node.containerd), []);
  await assertHonestDisk(node);
  for (const { image, ref } of images) {
    assert.equal(await node.containerd.imageDigest(ref), image.target.digest);
    await assertImageReadable(node, image);
    assert.equal(await node.containerd.runContainer(ref), `${image.greeting}\n`);
  }
}

/** Digests of all blobs of the images, sorted. */
function digestsOf(images: readonly Pushed[]): string[] {
  const all = images.flatMap(({ image }) => blobsOf(image).map(({ digest }) => digest));
  return [...new Set(all)].toSorted();
}

/** Digests of the blobs that `one` has and none of `others`. */
function digestsOnly(one: Pushed, others: readonly Pushed[]): string[] {
  const kept = new Set(digestsOf(others));
  return digestsOf([one]).filter((digest) => !kept.has(digest));
}

async function blobFilesOf(node: SwarmNode): Promise<string[]> {
  return (await blobFiles(node)).toSorted();
}

async function cacheFolderOf({ content_dir }: SwarmNode): Promise<string[]> {
  const names = await readdir(join(content_dir, '.layerswarm/cache/sha256')).catch(() => []);
  return names.map((name) => `sha256:${name}`).toSorted();
}

/** What the first version wrote for its cache blobs. */
async function marksOf({ host }: SwarmNode): Promise<string[]> {
  const marks = join(host.dir, 'state/cache');
  const names = await readdir(marks, { recursive: true }).catch(() => []);
  const hexes = names.flatMap((name) => /[0-9a-f]{64}$/.exec(name)?.slice(0, 1) ?? []);
  return hexes.map((hex) => `sha256:${hex}`).toSorted();
}
