// nerdctl on our content store and on the built-in one: the same commands, the same answers.
import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import { buildImage } from '../fixtures/image.ts';
import type { TestImage } from '../fixtures/image.ts';
import { Nerdctl } from './lab/clients.ts';
import { LabContainerd } from './lab/containerd.ts';
import { assertImageReadable, readEveryBlob } from './lab/content-oracle.ts';
import { cacheDir, debianTools } from './lab/debian-packages.ts';
import { goReason } from './lab/go-programs.ts';
import type { CommandResult } from './lab/run-command.ts';
import { NOTHING_LEFT, SwarmLab, hostReason, leftBehind } from './swarm-lab.ts';
import type { SwarmNode } from './swarm-lab.ts';

const LINE = '2.3';

/** One command, and what of its answer must be the same on both stores. */
interface Step {
  readonly id: string;
  readonly run: (on: Side) => Promise<CommandResult>;
  /** Of its stdout; default: nothing, it may name times and numbers. */
  readonly told?: (stdout: string) => unknown;
}

interface Side {
  readonly nerdctl: Nerdctl;
  readonly containerd: LabContainerd;
  /** Image name only this side pushes to. */
  readonly own: string;
}

suite('nerdctl on our store and on the built-in one', {
  skip: hostReason() ?? goReason() ?? false,
  timeout: 900_000,
}, () => {
  const stack = new AsyncDisposableStack();
  let lab: SwarmLab;
  let image: TestImage;
  let ref: string;
  let holder: SwarmNode;
  let sides: { readonly ours: Side; readonly builtin: Side };

  before(async () => {
    const tools = await debianTools();
    const { busybox } = tools;
    const recipe = { seed: 'smoke', size_bytes: 12_000_000, zstd: true, busybox };
    image = await buildImage(recipe, cacheDir());
    lab = stack.use(await SwarmLab.create(tools));
    ref = await lab.push(image, 'app');
    holder = await lab.addNode('a', { seeds: [image] });
    const { containerd } = await lab.addNode('b', { line: LINE });
    await lab.meshed(lab.nodes[1]!, { peers: 1, holders: [holder], blobs: 2 });
    const host = await lab.network.addHost('c');
    const registry = lab.registry.address;
    const plain = stack.use(await LabContainerd.start(host, tools, { line: LINE, registry }));
    const side = async (of: LabContainerd, name: string): Promise<Side> => ({
      nerdctl: await Nerdctl.of(of, tools),
      containerd: of,
      own: `${registry}/${name}:v2`,
    });
    sides = { ours: await side(containerd, 'ours'), builtin: await side(plain, 'builtin') };
  });

  after(async () => {
    await stack.disposeAsync();
    assert.deepEqual(await leftBehind(), NOTHING_LEFT);
  });

  const archive = ({ containerd }: Side): string => `${containerd.host.dir}/saved.tar`;
  const lines = (stdout: string): string[] => stdout.split('\n').filter(Boolean).toSorted();
  const steps: readonly Step[] = [
    { id: 'pull', run: ({ nerdctl }) => nerdctl.command(['pull', '--quiet', ref]) },
    {
      id: 'images',
      run: ({ nerdctl }) => nerdctl.command(['images', '--no-trunc', '--format', '{{json .}}']),
      told: (stdout) => {
        const { Digest, ID, Size, BlobSize, Platform } = JSON.parse(stdout) as Record<
          string,
          string
        >;
        return { Digest, ID, Size, BlobSize, Platform };
      },
    },
    {
      id: 'image inspect',
      run: ({ nerdctl }) =>
        nerdctl.command(['image', 'inspect', ref, '--format', '{{json .RootFS}} {{.RepoDigests}}']),
      told: (stdout) => stdout,
    },
    {
      id: 'history',
      run: ({ nerdctl }) =>
        nerdctl.command(['history', '--quiet', '--no-trunc', '--format', '{{.CreatedBy}}', ref]),
      told: (stdout) => stdout,
    },
    { id: 'run', run: ({ nerdctl }) => nerdctl.run(['--rm', ref]), told: (stdout) => stdout },
    {
      id: 'run, detached',
      run: ({ nerdctl }) => nerdctl.run(['-d', '--name', 'work', ref, '/bin/sleep', '600']),
    },
    {
      id: 'exec',
      run: ({ nerdctl }) =>
        nerdctl.command(['exec', 'work', '/bin/sh', '-c', 'echo written > /note; cat /note']),
      told: (stdout) => stdout,
    },
    {
      id: 'commit',
      run: ({ nerdctl, own }) => nerdctl.command(['commit', '--pause=false', 'work', own]),
    },
    { id: 'rm', run: ({ nerdctl }) => nerdctl.command(['rm', '-f', 'work']) },
    { id: 'push', run: ({ nerdctl, own }) => nerdctl.command(['push', '--quiet', own]) },
    {
      id: 'save',
      run: (on) => on.nerdctl.command(['save', '-o', archive(on), ref, on.own]),
    },
    {
      id: 'rmi',
      run: ({ nerdctl, own }) => nerdctl.command(['rmi', '-f', own, ref]),
    },
    {
      id: 'images, all gone',
      run: ({ nerdctl }) => nerdctl.command(['images', '--quiet']),
      told: (stdout) => stdout,
    },
    { id: 'load', run: (on) => on.nerdctl.command(['load', '-i', archive(on)]) },
    {
      id: 'run of what was committed, saved and loaded',
      run: ({ nerdctl, own }) => nerdctl.run(['--rm', own, '/bin/cat', '/note', '/greeting']),
      told: (stdout) => stdout,
    },
    {
      id: 'pull of what was pushed',
      run: async ({ nerdctl, own }) => {
        await nerdctl.command(['rmi', '-f', own]);
        return nerdctl.command(['pull', '--quiet', own]);
      },
    },
    {
      id: 'run of what was committed, pushed and pulled',
      run: ({ nerdctl, own }) => nerdctl.run(['--rm', own, '/bin/cat', '/note']),
      told: (stdout) => stdout,
    },
    {
      id: 'tag',
      run: ({ nerdctl }) => nerdctl.command(['tag', ref, 'another:name']),
    },
    {
      id: 'image prune',
      run: ({ nerdctl }) => nerdctl.command(['image', 'prune', '--all', '--force']),
      told: (stdout) => lines(stdout).filter((line) => line.startsWith('Untagged')).length,
    },
    {
      id: 'system prune',
      run: ({ nerdctl }) => nerdctl.command(['system', 'prune', '--force']),
      told: (stdout) => stdout,
    },
    {
      id: 'images, all pruned',
      run: ({ nerdctl }) => nerdctl.command(['images', '--quiet']),
      told: (stdout) => stdout,
    },
    {
      id: 'run of an image that is not here any more',
      run: ({ nerdctl }) => nerdctl.run(['--rm', '--pull', 'never', ref]),
      told: (stdout) => stdout,
    },
  ];

  for (const { id, run, told = () => undefined } of steps) {
    test(`${id} answers as on the built-in store`, async () => {
      const { ours, builtin } = sides;
      const want = await run(builtin);
      const got = await run(ours);
      const what = `built-in: ${want.stderr}\nours: ${got.stderr}`;
      assert.equal(got.code, want.code, what);
      if (id !== steps.at(-1)!.id) assert.equal(want.code, 0, want.stderr);
      if (want.code === 0) assert.deepEqual(told(got.stdout), told(want.stdout), what);
      assert.deepEqual(await readEveryBlob(ours.containerd), []);
      if (id === 'pull') {
        await assertImageReadable(ours, image);
        const clients = (await lab.registry.layerGets(image)).map((get) => get.client);
        assert.ok(
          !clients.includes(ours.containerd.host.address),
          'a layer came from the registry',
        );
      }
    });
  }
});
