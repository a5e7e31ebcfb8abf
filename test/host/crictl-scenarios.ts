// What an operator of a Kubernetes node types: crictl, once on every line.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { layerBytes } from '../fixtures/image.ts';
import { crictl } from './lab/clients.ts';
import { goReason } from './lab/go-programs.ts';
import { WireMeter, assertRight, blobFiles } from './pull-bench.ts';
import type { PullBench } from './pull-bench.ts';
import { untilTrue } from './wait.ts';

interface ListedImage {
  readonly id: string;
  readonly repoTags: readonly string[];
  readonly repoDigests: readonly string[];
  readonly size: string;
}

/** Registers the scenario. */
export function crictlScenarios(bench: () => PullBench): void {
  test('crictl pulls an image from a peer, lists it, inspects it and removes it', {
    skip: goReason() ?? false,
  }, async () => {
    const { b, app } = bench();
    const { containerd } = b;
    const { image, ref } = app;
    const said = async (...args: readonly string[]): Promise<string> => {
      const { code, stdout, stderr } = await crictl(containerd, args);
      assert.equal(code, 0, `crictl ${args.join(' ')}: ${stderr}`);
      return stdout;
    };
    await bench().ready();
    const wire = await WireMeter.start(bench());
    assert.match(await said('pull', ref), new RegExp(`up to date for ${image.config.digest}`));
    await wire.allFromHolder(layerBytes(image));
    await bench().noLayerGets(app);
    await assertRight(b, app, 'k8s.io');
    const { images } = JSON.parse(await said('images', '-o', 'json')) as {
      readonly images: readonly ListedImage[];
    };
    const listed = images.find(({ id }) => id === image.config.digest);
    const repository = ref.replace(/:v1$/, '');
    assert.deepEqual(listed?.repoTags, [ref]);
    assert.deepEqual(listed.repoDigests, [`${repository}@${image.target.digest}`]);
    const manifest = image.target.size + image.config.size;
    assert.equal(Number(listed.size), layerBytes(image) + manifest);
    const { status } = JSON.parse(await said('inspecti', ref)) as { readonly status: ListedImage };
    assert.equal(status.id, image.config.digest);
    await said('rmi', ref);
    assert.equal(await said('images', '-q'), '');
    await containerd.clear();
    await untilTrue('an empty blob directory', async () => (await blobFiles(b)).length === 0);
  });
}
