import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import { buildImage } from '../../fixtures/image.ts';
import type { TestImage } from '../../fixtures/image.ts';
import { LabContainerd } from './containerd.ts';
import { assertImageReadable } from './content-oracle.ts';
import { cacheDir, debianTools } from './debian-packages.ts';
import type { ContainerdLine, DebianTools } from './debian-packages.ts';
import { LabNetwork } from './netns.ts';
import { LabRegistry } from './registry.ts';
import { residueOf } from './residue.ts';

const LINES = ['1.6', '1.7', '2.1'] as const satisfies readonly ContainerdLine[];
const NOTHING = { namespaces: [], processes: [], mounts: [], directories: [], cgroups: [] };

interface Bench {
  readonly containerd: LabContainerd;
  readonly registry: LabRegistry;
  readonly image: TestImage;
  readonly ref: string;
}

suite('the lab with containerd and its built-in store', { timeout: 300_000 }, () => {
  let tools: DebianTools;
  let image: TestImage;
  let pauseImage: TestImage;

  before(async () => {
    tools = await debianTools();
    const { busybox } = tools;
    const cache = cacheDir();
    image = await buildImage({ seed: 'smoke', size_bytes: 12_000_000, zstd: true, busybox }, cache);
    const command = ['/bin/sleep', '86400'];
    const recipe = { seed: 'pause', size_bytes: 10_000, layers: 1, busybox, command };
    pauseImage = await buildImage(recipe, cache);
  });

  after(async () => assert.deepEqual(await residueOf(), NOTHING));

  const bench = async (line: ContainerdLine, work: (bench: Bench) => Promise<void>) => {
    await using network = await LabNetwork.create();
    const hub = await network.addHost('hub');
    const host = await network.addHost('node');
    await using registry = await LabRegistry.start(hub, tools);
    await registry.push(pauseImage, 'pause');
    const ref = await registry.push(image, 'app', 'v1');
    await registry.forget();
    await using containerd = await LabContainerd.start(host, tools, {
      line,
      registry: registry.address,
    });
    await work({ containerd, registry, image, ref });
  };

  for (const line of LINES) {
    test(`${line}: ctr pulls an image, every digest is there, and a container of it prints`, () =>
      bench(line, async ({ containerd, registry, ref }) => {
        assert.equal(await containerd.contentPlugin(), 'content');
        await containerd.pull(ref);
        assert.equal(await containerd.imageDigest(ref), image.target.digest);
        const expected = [image.manifest, image.config, ...image.layers].map((d) => d.digest);
        assert.deepEqual((await containerd.contentList()).toSorted(), expected.toSorted());
        await assertImageReadable({ containerd }, image);
        const gets = await registry.layerGets(image);
        assert.equal(gets.length, image.layers.length);
        assert.equal(await containerd.runContainer(ref), `${image.greeting}\n`);
        await containerd.restart();
        await containerd.removeImage(ref);
        assert.deepEqual(await containerd.contentList(), []);
      }));

    test(`${line}: CRI pulls an image and a pod's container of it prints`, () =>
      bench(line, async ({ containerd, ref }) => {
        const { cri } = containerd;
        assert.equal((await cri.conditions())['RuntimeReady'], true);
        const { output } = await containerd.pull(ref, { client: 'cri' });
        assert.equal(output, image.config.digest);
        const status = await cri.imageStatus(ref);
        const [repository] = ref.split(/:v1$/);
        assert.deepEqual(status?.repo_digests, [`${repository!}@${image.target.digest}`]);
        const pod = await cri.runPod('smoke', containerd.dir);
        const id = await cri.startContainer(pod, 'app', ref);
        const exit = await cri.containerExit(id);
        assert.equal(exit.exit_code, 0);
        assert.equal(await cri.containerOutput(pod, 'app'), `${image.greeting}\n`);
        await cri.removePod(pod);
      }));
  }

  test('a bench left in the middle of everything still goes away', async () => {
    await bench('1.7', async ({ containerd, ref }) => {
      await containerd.pull(ref, { client: 'cri' });
      const pod = await containerd.cri.runPod('left', containerd.dir);
      await containerd.cri.startContainer(pod, 'app', ref, ['/bin/sleep', '3600']);
      await containerd.process.stop(0);
    });
    assert.deepEqual(await residueOf(), NOTHING);
  });
});
