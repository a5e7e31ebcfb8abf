// Blobs under other digests than SHA-256: kept, read and committed as by the newest built-in store, and never shared.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { copyFile, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, suite, test } from 'node:test';
import { blobPath, buildImage } from '../fixtures/image.ts';
import type { TestImage } from '../fixtures/image.ts';
import type { Descriptor } from '../fixtures/layer.ts';
import { LabContainerd } from './lab/containerd.ts';
import { assertImageReadable, readEveryBlob } from './lab/content-oracle.ts';
import { cacheDir, debianTools } from './lab/debian-packages.ts';
import type { ContainerdLine } from './lab/debian-packages.ts';
import { goReason } from './lab/go-programs.ts';
import { RUN_PREFIX } from './lab/residue.ts';
import { NOTHING_LEFT, SwarmLab, hostReason, leftBehind } from './swarm-lab.ts';
import type { SwarmNode } from './swarm-lab.ts';

const LINES: readonly ContainerdLine[] = ['1.6', '1.7', '2.1', '2.3'];
const TEXT = Buffer.from('a blob under another digest\n'.repeat(5000));

suite('blobs under other digests than SHA-256', {
  skip: hostReason() ?? false,
  timeout: 600_000,
}, () => {
  const stack = new AsyncDisposableStack();
  let lab: SwarmLab;
  /** One of its layers is described by its SHA-512. */
  let image: TestImage;
  let ref: string;

  before(async () => {
    const tools = await debianTools();
    const { busybox } = tools;
    lab = stack.use(await SwarmLab.create(tools));
    const plain = await buildImage(
      { seed: 'sha512', size_bytes: 6_000_000, layers: 2, busybox },
      cacheDir(),
    );
    const dir = await mkdtemp(join(tmpdir(), `${RUN_PREFIX}sha512-`));
    stack.defer(() => rm(dir, { recursive: true, force: true }));
    image = await withSha512(plain, dir);
    ref = await lab.push(image, 'app');
  });

  after(async () => {
    await stack.disposeAsync();
    assert.deepEqual(await leftBehind(), NOTHING_LEFT);
  });

  for (const line of LINES) {
    suite(`containerd ${line}`, { skip: goReason(line) ?? false }, () => {
      const digits = line.replace('.', '');
      const hosts = new AsyncDisposableStack();
      let plain: LabContainerd;
      let a: SwarmNode;
      let b: SwarmNode;

      before(async () => {
        const host = await lab.network.addHost(`p${digits}`);
        const registry = lab.registry.address;
        plain = hosts.use(await LabContainerd.start(host, lab.tools, { line, registry }));
        a = await lab.addNode(`a${digits}`, { line });
        b = await lab.addNode(`b${digits}`, { line });
      });

      after(async () => {
        for (const node of [a, b]) {
          await node.containerd.stop();
          await node.daemon.stop();
        }
        await hosts.disposeAsync();
      });

      // The built-in store of 2.1 and before knows no other hash than SHA-256; ours is on every line what 2.3's is.
      const builtin_takes = line === '2.3';

      for (const algorithm of ['sha384', 'sha512']) {
        test(`a ${algorithm} blob is taken in, listed and read, and wrong bytes are refused`, async () => {
          const taken = { wrong_refused: true, code: 0, listed: true, read: true };
          assert.deepEqual(await takenIn(a.containerd, algorithm), taken);
          assert.deepEqual(await readEveryBlob(a.containerd), []);
          const builtin = builtin_takes ? taken : { ...taken, code: 1, listed: false, read: false };
          assert.deepEqual(await takenIn(plain, algorithm), builtin);
        });
      }

      test('an image with a sha512 layer is pulled, that layer never from a peer', async () => {
        await pullRight(a.containerd);
        await lab.meshed(b, { peers: 1, holders: [a], blobs: 2 });
        await lab.registry.forget();
        await pullRight(b.containerd);
        const gets = await lab.registry.layerGets(image);
        const asked = gets.map((get) => get.path.split('/').at(-1));
        assert.deepEqual(asked, [image.layers.at(-1)!.digest]);
        if (builtin_takes) await pullRight(plain);
        else await assert.rejects(plain.pull(ref), /unexpected commit digest sha256/);
      });

      test('what was pulled stays readable when the built-in store takes over', async () => {
        const { containerd, daemon } = a;
        await containerd.stop();
        await daemon.stop();
        containerd.useStore({ kind: 'builtin' });
        await containerd.start();
        assert.deepEqual(await readEveryBlob(containerd), []);
        await assertImageReadable({ containerd }, image);
        assert.equal(await containerd.runContainer(ref), `${image.greeting}\n`);
      });
    });
  }

  const pullRight = async (containerd: LabContainerd): Promise<void> => {
    await containerd.pull(ref);
    await assertImageReadable({ containerd }, image);
  };
});

/** What `ctr` says when it takes a blob in under its digest, lists and reads it, and when the bytes are others. */
async function takenIn(containerd: LabContainerd, algorithm: string): Promise<object> {
  const hex = createHash(algorithm).update(TEXT).digest('hex');
  const digest = `${algorithm}:${hex}`;
  const ctr = async (
    args: readonly string[],
    input = '',
  ): Promise<{ code: number | null; stdout: string }> => {
    const program = join(containerd.package.bin_dir, 'ctr');
    const argv = [program, '-a', containerd.socket, 'content', ...args];
    return containerd.host.tryRun(argv, { input });
  };
  const ingest = (name: string, text: string) =>
    ctr(['ingest', '--expected-digest', digest, '--expected-size', `${TEXT.length}`, name], text);
  const refused = await ingest('other', TEXT.toString().replace('blob', 'blub'));
  const { code } = await ingest('right', TEXT.toString());
  const listed = (await ctr(['ls', '--quiet'])).stdout.split('\n').includes(digest);
  const read = (await ctr(['get', digest])).stdout === TEXT.toString();
  return { wrong_refused: refused.code !== 0, code, listed, read };
}

/** The image with its last layer described by SHA-512, in a directory of its own. */
async function withSha512(from: TestImage, dir: string): Promise<TestImage> {
  const blobs = join(dir, 'blobs/sha256');
  await mkdir(blobs, { recursive: true });
  const last = from.layers.at(-1)!;
  const digest = `sha512:${createHash('sha512')
    .update(await readFile(blobPath(from, last.digest)))
    .digest('hex')}`;
  const layers = [...from.layers.slice(0, -1), { ...last, digest }];
  for (const { digest: name } of [from.config, ...from.layers.slice(0, -1)])
    await copyFile(blobPath(from, name), join(blobs, name.slice('sha256:'.length)));
  await copyFile(blobPath(from, last.digest), join(blobs, digest.slice('sha512:'.length)));
  const text = JSON.parse(await readFile(blobPath(from, from.manifest.digest), 'utf8')) as object;
  const bytes = Buffer.from(JSON.stringify({ ...text, layers }));
  const hex = createHash('sha256').update(bytes).digest('hex');
  await writeFile(join(blobs, hex), bytes);
  const manifest: Descriptor = { ...from.manifest, digest: `sha256:${hex}`, size: bytes.length };
  const image = { ...from, dir, manifest, target: manifest, layers };
  await writeFile(join(dir, 'image.json'), JSON.stringify(image));
  return image;
}
