import assert from 'node:assert/strict';
import { open, rm, truncate } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, suite, test } from 'node:test';
import { buildImage } from '../../fixtures/image.ts';
import type { TestImage } from '../../fixtures/image.ts';
import { LabContainerd } from './containerd.ts';
import { assertImageReadable, readEveryBlob } from './content-oracle.ts';
import { cacheDir, debianTools } from './debian-packages.ts';
import { LabNetwork } from './netns.ts';
import { LabRegistry } from './registry.ts';

suite('the oracle that reads every byte through containerd', { timeout: 120_000 }, () => {
  const stack = new AsyncDisposableStack();
  let image: TestImage;
  let ref: string;
  let containerd: LabContainerd;

  before(async () => {
    const tools = await debianTools();
    image = await buildImage(
      { seed: 'smoke', size_bytes: 12_000_000, zstd: true, busybox: tools.busybox },
      cacheDir(),
    );
    const network = stack.use(await LabNetwork.create());
    const hub = await network.addHost('hub');
    const registry = stack.use(await LabRegistry.start(hub, tools));
    ref = await registry.push(image, 'app');
    const host = await network.addHost('node');
    const options = { line: '1.7', registry: registry.address } as const;
    containerd = stack.use(await LabContainerd.start(host, tools, options));
    await containerd.pull(ref);
  });

  after(async () => stack.disposeAsync());

  test('a pulled image is right, in its own namespace only', async () => {
    assert.deepEqual(await readEveryBlob(containerd), []);
    await assertImageReadable({ containerd }, image);
    await assert.rejects(assertImageReadable({ containerd }, image, 'other'), /not found/);
  });

  test('a blob that is gone, one that is shorter and one with a turned bit are named, and only these', async () => {
    const fileOf = (digest: string): string =>
      join(containerd.content_dir, 'blobs', digest.replace(':', '/'));
    const [gone, short, turned] = image.layers.map((layer) => layer.digest);
    await rm(fileOf(gone!));
    await truncate(fileOf(short!), 1000);
    await using file = await open(fileOf(turned!), 'r+');
    const byte = Buffer.alloc(1);
    await file.read(byte, 0, 1, 7);
    byte[0]! ^= 1;
    await file.write(byte, 0, 1, 7);
    const broken = await readEveryBlob(containerd);
    const named = (list: readonly string[]): string[] => list.toSorted();
    assert.deepEqual(
      named(broken.map((blob) => blob.digest)),
      named([gone!, short!, turned!]),
      JSON.stringify(broken),
    );
    assert.match(broken.find((blob) => blob.digest === turned)!.why, /^hash sha256:/);
    await assert.rejects(assertImageReadable({ containerd }, image));
  });
});
