// A containerd that isolates its namespaces: who only names a blob must not get it, and neither may a peer's copy help.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { suite, test } from 'node:test';
import type { Finding } from '../../src/host/doctor/finding.ts';
import type { TestImage } from '../fixtures/image.ts';
import type { ContainerdLine } from './lab/debian-packages.ts';
import { LITTLE, nodeOfEach, push, suiteLab } from './suite-lab.ts';
import { blobsOf, hostReason } from './swarm-lab.ts';
import type { SwarmLab, SwarmNode } from './swarm-lab.ts';

const skip = hostReason() ?? false;
const LINES = ['1.6', '1.7', '2.1', '2.3'] as const satisfies readonly ContainerdLine[];

suite('isolated namespaces', { skip, timeout: 300_000 }, () => {
  let nodes: ReadonlyMap<ContainerdLine, SwarmNode>;
  let lab: SwarmLab;
  let image: TestImage;
  let ref: string;
  let holder: SwarmNode;

  suiteLab(async (made) => {
    lab = made;
    ({ image, ref } = await push(lab, LITTLE));
    holder = await lab.addNode('holder', { seeds: [image] });
    const config = { content: ['sharing_policy = "isolated"'] };
    nodes = await nodeOfEach(lab, LINES, { config, sharing_policy: 'isolated' });
  });

  for (const line of LINES) {
    const node = () => nodes.get(line)!;

    test(`${line}: a namespace that writes zeros under another's digest is refused, as by the built-in store`, async () => {
      const { containerd } = node();
      await lab.meshed(node(), {
        peers: LINES.length,
        holders: [holder],
        blobs: blobsOf(image).length,
      });
      await containerd.pull(ref);
      const layer = image.layers[1]!;
      const ours = await attack(node(), layer);
      assert.notEqual(ours.code, 0, 'the write of zeros went through');
      const stolen = await containerd.contentList('thief');
      assert.deepEqual(stolen, []);
      containerd.useStore({ kind: 'builtin' });
      await containerd.restart();
      const theirs = await attack(node(), layer);
      containerd.useStore({ kind: 'proxy', address: node().daemon.socket });
      await containerd.restart();
      assert.notEqual(theirs.code, 0);
      assert.match(ours.stderr, /unexpected commit digest/);
      assert.match(theirs.stderr, /unexpected commit digest/);
    });

    test(`${line}: a namespace that pulls gets its own copy from the registry`, async () => {
      await lab.registry.forget();
      await node().containerd.pull(ref, { namespace: 'second' });
      const gets = await lab.registry.layerGets(image);
      assert.deepEqual(
        gets.map(({ path }) => path.slice(path.indexOf('sha256:'))).sort(),
        image.layers.map(({ digest }) => digest).sort(),
      );
      const out = await node().containerd.runContainer(ref, [], { namespace: 'second' });
      assert.equal(out, `${image.greeting}\n`);
    });
  }

  test('doctor fails a host whose containerd isolates and whose daemon does not', async () => {
    const node = nodes.get('1.7')!;
    const wiring = async (config: string) => {
      const files = ['--config', config];
      const theirs = ['--containerd-config', join(node.containerd.dir, 'config.toml')];
      const argv = ['doctor', '--json', '--only', 'wiring', ...files, ...theirs];
      const { stdout } = await node.daemon.cli(argv);
      return (JSON.parse(stdout) as { checks: Finding[] }).checks[0]!;
    };
    const right = await wiring(node.daemon.config);
    assert.equal(right.level, 'note', right.summary);
    const shared = join(node.host.dir, 'shared.toml');
    const edit = 's/sharing_policy = "isolated"/sharing_policy = "shared"/';
    await node.host.run([
      'sh',
      '-c',
      `sed '${edit}' "$1" > "$2"`,
      'sh',
      node.daemon.config,
      shared,
    ]);
    const wrong = await wiring(shared);
    assert.equal(wrong.level, 'fail');
    assert.match(wrong.summary, /isolates namespaces/);
    assert.ok(wrong.mend.some((m) => m.includes('content_sharing_policy = "shared"')));
  });
});

/** Writes as many zeros as the layer has bytes, from a file, under the ref of its puller. */
async function attack(
  { containerd, host }: SwarmNode,
  { digest, size }: { readonly digest: string; readonly size: number },
) {
  const ctr = join(containerd.package.bin_dir, 'ctr');
  const script = `head -c ${size} /dev/zero > "$4/zeros"; "$1" -a "$2" -n thief content ingest --expected-size ${size} --expected-digest "$3" "layer-$3" < "$4/zeros"`;
  return host.tryRun(['sh', '-c', script, 'sh', ctr, containerd.socket, digest, host.dir]);
}
