// A blob that containerd believes to have and that is gone or wrong on disk: doctor names it, `repair` makes containerd forget it, the next
// pull fetches that blob alone. On the oldest and the newest Debian line and the one between.
import assert from 'node:assert/strict';
import { readdir, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { suite, test } from 'node:test';
import type { RepairReport } from '../../src/cli/repair-command.ts';
import type { Finding } from '../../src/host/doctor/finding.ts';
import type { TestImage } from '../fixtures/image.ts';
import { assertImageReadable } from './lab/content-oracle.ts';
import type { ContainerdLine } from './lab/debian-packages.ts';
import { forgetImages } from './pull-bench.ts';
import { LITTLE, nodeOfEach, push, suiteLab, turnBit } from './suite-lab.ts';
import { hostReason } from './swarm-lab.ts';
import type { SwarmLab, SwarmNode } from './swarm-lab.ts';

const skip = hostReason() ?? false;
const LINES = ['1.6', '1.7', '2.1', '2.3'] as const satisfies readonly ContainerdLine[];

suite('blobs that the disk lost', { skip, timeout: 300_000 }, () => {
  let nodes: ReadonlyMap<ContainerdLine, SwarmNode>;
  let lab: SwarmLab;
  let image: TestImage;
  let ref: string;

  suiteLab(async (made) => {
    lab = made;
    ({ image, ref } = await push(lab, LITTLE));
    // No swarm: nobody but the registry brings anything back.
    const config = { swarm: ['enabled = false'], store: ['cache_max_bytes = 0'] };
    nodes = await nodeOfEach(lab, LINES, { config });
  });

  test('a cached layer whose byte has turned does not stand in the way of its image for ever', async () => {
    // It keeps what containerd has deleted, and hands it back when it is wanted again.
    const config = { swarm: ['enabled = false'] };
    const node = await lab.addNode('cached', { line: '1.7', config });
    const { containerd } = node;
    await containerd.pull(ref);
    await containerd.clear();
    const layer = image.layers[1]!;
    await turnBit(await cachedFile(node, layer.digest), layer.size >> 1);
    await containerd.pull(ref).catch(() => undefined);
    await repair(node, '--yes', '--', layer.digest);
    await lab.registry.forget();
    await containerd.pull(ref);
    await assertImageReadable(node, image, 'default');
    assert.equal(await containerd.runContainer(ref), `${image.greeting}\n`);
    assert.equal((await doctor(node, '--read-all')).blobs.level, 'ok');
  });

  for (const line of LINES) {
    const node = () => nodes.get(line)!;
    /** 2.x leaves layers out that are unpacked already, unless the client itself fetches them. */
    const pull = async (client: 'ctr' | 'cri') =>
      node().containerd.pull(ref, {
        client,
        flags: line.startsWith('2') && client === 'ctr' ? ['--local'] : [],
      });
    const fetched = async () =>
      (await lab.registry.events())
        .filter(({ method, status }) => method === 'GET' && status < 300)
        .map(({ path }) => path.slice(path.indexOf('sha256:')));

    test(`${line}: a manifest that is gone and a layer with a wrong byte come back alone, and the image is right`, async () => {
      await pull('ctr');
      const layer = image.layers[1]!;
      const lost = [image.manifest.digest, layer.digest].sort();
      await rm(fileOf(node(), image.manifest.digest));
      await turnBit(fileOf(node(), layer.digest), layer.size >> 1);
      const found = await doctor(node(), '--read-all');
      assert.deepEqual(found.blobs.level, 'fail');
      for (const digest of lost) {
        assert.ok(
          found.blobs.mend.includes(`layerswarm repair ${digest}`),
          found.blobs.mend.join('\n'),
        );
      }
      const dry = await repair(node(), '--dry-run');
      assert.deepEqual([dry.outcome, digestsOf(dry)], ['dry_run', lost]);
      assert.ok(dry.entries.every(({ images }) => images.length <= 1));
      const done = await repair(node(), '--yes');
      assert.deepEqual([done.outcome, digestsOf(done)], ['done', lost]);
      // "gone": containerd's own collection was quicker, once the manifest was forgotten.
      assert.ok(done.entries.every(({ outcome }) => outcome !== 'kept'));
      // What hangs on the manifest outlives a collection: the pull has to fetch these two alone.
      await collect(node());
      await lab.registry.forget();
      await pull('ctr');
      assert.deepEqual((await fetched()).sort(), lost);
      await assertImageReadable(node(), image, 'default');
      assert.equal(await node().containerd.runContainer(ref), `${image.greeting}\n`);
      assert.equal((await doctor(node(), '--read-all')).blobs.level, 'ok');
      assert.equal((await doctor(node())).images.level, 'ok');
      assert.equal((await repair(node(), '--yes')).outcome, 'nothing_to_do');
    });

    test(`${line}: of an image of kubelet's, repaired by name, index and config come back alone`, async () => {
      await pull('cri');
      const lost = [image.target.digest, image.config.digest].sort();
      for (const digest of lost) await rm(fileOf(node(), digest));
      const done = await repair(node(), '--yes', '--namespace', 'k8s.io', '--', ...lost);
      assert.deepEqual(digestsOf(done), lost);
      await collect(node());
      await lab.registry.forget();
      await pull('cri');
      assert.deepEqual((await fetched()).sort(), lost);
      await assertImageReadable(node(), image, 'k8s.io');
      assert.equal(
        await node().containerd.runContainer(ref, [], { namespace: 'k8s.io' }),
        `${image.greeting}\n`,
      );
    });

    test(`${line}: an image that is removed while a blob of it is lost leaves nothing lost behind`, async () => {
      await forgetImages(node());
      await pull('ctr');
      await rm(fileOf(node(), image.config.digest));
      assert.equal((await doctor(node())).images.level, 'fail');
      assert.equal((await node().daemon.status()).blobs?.lostCount, 1);
      await node().containerd.clear();
      assert.equal((await node().daemon.status()).blobs?.lostCount, 0);
    });

    test(`${line}: a right blob is left alone, and so is a containerd with another store`, async () => {
      await forgetImages(node());
      await pull('ctr');
      const kept = await repair(node(), '--yes', image.config.digest);
      assert.equal(kept.outcome, 'nothing_to_do');
      assert.match(kept.notes.join(), /is right on disk/);
      const { containerd } = node();
      containerd.useStore({ kind: 'builtin' });
      await containerd.restart();
      const refused = await run(node(), ['repair', '--json', '--yes', image.config.digest]);
      assert.equal(refused.code, 80, refused.stderr);
      assert.match(refused.stderr, /does not take its content from this daemon/);
      containerd.useStore({ kind: 'proxy', address: node().daemon.socket });
      await containerd.restart();
      await assertImageReadable(node(), image, 'default');
    });
  }
});

const run = async (node: SwarmNode, args: readonly string[]) =>
  node.daemon.cli([
    ...args.slice(0, 1),
    ...['--config', node.daemon.config],
    ...['--containerd-config', join(node.containerd.dir, 'config.toml')],
    ...args.slice(1),
  ]);

async function repair(node: SwarmNode, ...args: string[]): Promise<RepairReport> {
  const { code, stdout, stderr } = await run(node, ['repair', '--json', ...args]);
  assert.equal(code, 0, stderr);
  return JSON.parse(stdout) as RepairReport;
}

async function doctor(node: SwarmNode, ...args: string[]) {
  const which = ['doctor', '--json', '--only', 'blobs,images', ...args];
  const { stdout, stderr } = await run(node, which);
  assert.equal(stderr, '');
  const { checks } = JSON.parse(stdout) as { checks: readonly Finding[] };
  const of = (id: string) => checks.find((check) => check.id === id)!;
  return { blobs: of('blobs'), images: of('images') };
}

function digestsOf({ entries }: RepairReport): string[] {
  return [...new Set(entries.map(({ digest }) => digest))].sort();
}

function fileOf(node: SwarmNode, digest: string): string {
  return join(node.content_dir, 'blobs', digest.replace(':', '/'));
}

/** Where a blob's bytes lie, among containerd's or in the daemon's own cache. */
async function cachedFile(node: SwarmNode, digest: string): Promise<string> {
  const names = await readdir(node.content_dir, { recursive: true });
  const hex = digest.slice('sha256:'.length);
  const found = names
    .filter((name) => name.endsWith(hex))
    .map((name) => join(node.content_dir, name));
  const size = async (file: string) => (await stat(file)).size;
  const sizes = await Promise.all(found.map(async (file) => ({ file, size: await size(file) })));
  const largest = sizes.sort((a, b) => b.size - a.size)[0];
  assert.ok(largest, `${digest} is cached`);
  return largest.file;
}

/** A synchronous garbage collection. */
async function collect({ containerd }: SwarmNode): Promise<void> {
  await containerd.ctr(['leases', 'create', '--id', 'collect']);
  await containerd.ctr(['leases', 'rm', '--sync', 'collect']);
}
