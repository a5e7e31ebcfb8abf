// `layerswarm doctor` beside real containerds: what it says when all is well, and of each thing that is broken on purpose.
import assert from 'node:assert/strict';
import { chmod, rename } from 'node:fs/promises';
import { join } from 'node:path';
import { suite, test } from 'node:test';
import type { Finding } from '../../src/host/doctor/finding.ts';
import type { TestImage } from '../fixtures/image.ts';
import { goReason } from './lab/go-programs.ts';
import { LITTLE, push, suiteLab } from './suite-lab.ts';
import { hostReason } from './swarm-lab.ts';
import type { SwarmLab, SwarmNode } from './swarm-lab.ts';

const skip = hostReason() ?? goReason() ?? false;

type Report = { readonly code: number | null; readonly finding: (id: string) => Finding };

suite('doctor beside real containerd', { skip, timeout: 300_000 }, () => {
  let lab: SwarmLab;
  let image: TestImage;
  let ref: string;
  /** containerd 2.3, whose configuration is of version 4. */
  let a: SwarmNode;
  /** containerd 1.7. */
  let b: SwarmNode;

  suiteLab(async (made) => {
    lab = made;
    ({ image, ref } = await push(lab, LITTLE));
    a = await lab.addNode('a', { line: '2.3' });
    b = await lab.addNode('b', { line: '1.7' });
    await lab.meshed(b, { peers: 1 });
    for (const node of [a, b]) await node.containerd.pull(ref);
  });

  const doctor = async (node: SwarmNode, only?: string): Promise<Report> => {
    const containerd_config = join(node.containerd.dir, 'config.toml');
    const files = ['--config', node.daemon.config, '--containerd-config', containerd_config];
    const which = only === undefined ? [] : ['--only', only];
    const { code, stdout, stderr } = await node.daemon.cli([
      ...['doctor', '--json', ...files, ...which],
    ]);
    assert.equal(stderr, '');
    const { checks } = JSON.parse(stdout) as { checks: readonly Finding[] };
    const finding = (id: string): Finding => {
      const found = checks.find((one) => one.id === id);
      assert.ok(found, `${id} is checked`);
      return found;
    };
    return { code, finding };
  };

  const blobFile = (node: SwarmNode, digest: string): string =>
    join(node.content_dir, 'blobs', digest.replace(':', '/'));

  for (const [line, node] of [
    ['2.3', () => a],
    ['1.7', () => b],
  ] as const) {
    test(`${line}: a host where all is well has no failure and no warning`, async () => {
      await lab.meshed(b, { peers: 1 });
      const { code, finding } = await doctor(node());
      const shown = ['socket', 'wiring', 'images', 'swarm-port', 'cluster-key', 'disk', 'peers'];
      for (const id of shown) {
        const { level, summary, details } = finding(id);
        assert.ok(['ok', 'note'].includes(level), `${id}: ${summary} ${details.join(' ')}`);
      }
      assert.equal(code, 0);
      assert.equal(finding('images').level, 'ok');
      assert.equal(finding('images').facts['images_checked'], 1);
      // Index, manifest, config and layers.
      assert.equal(finding('images').facts['blobs_checked'], image.layers.length + 3);
      assert.equal(finding('service').level, 'note');
    });

    test(`${line}: a blob whose file is gone fails, and image and digest are named`, async () => {
      const layer = image.layers[1]!;
      const file = blobFile(node(), layer.digest);
      await rename(file, `${file}.aside`);
      const { code, finding } = await doctor(node(), 'images');
      assert.equal(code, 2);
      const { level, summary, mend } = finding('images');
      assert.equal(level, 'fail');
      assert.ok(summary.includes(layer.digest) && summary.includes(ref), summary);
      assert.ok(mend.some((command) => command.includes(`images pull ${ref}`)));
      await rename(`${file}.aside`, file);
      await node().daemon.restart();
      assert.equal((await doctor(node(), 'images')).code, 0);
    });
  }

  test('a peer that came in shows as inbound at the one and not at the other', async () => {
    await lab.meshed(a, { peers: 1 });
    const met = (await doctor(a, 'swarm-port')).finding('swarm-port');
    assert.deepEqual(met.facts['peers'], { connected: 1, inbound: 1 });
    const dialler = (await doctor(b, 'swarm-port')).finding('swarm-port');
    assert.deepEqual(dialler.facts['peers'], { connected: 1, inbound: 0 });
    const ports = met.facts['ports'] as readonly { transport: string; knock: object }[];
    const answers = { host: a.host.address, result: 'answers' };
    assert.deepEqual(
      ports.map(({ transport, knock }) => ({ transport, knock })),
      [
        { transport: 'udp', knock: answers },
        { transport: 'tcp', knock: answers },
      ],
    );
  });

  test('a key that others may read fails with the chmod that mends it', async () => {
    const key = join(a.host.dir, 'cluster.key');
    await chmod(key, 0o644);
    const { code, finding } = await doctor(a, 'cluster-key');
    await chmod(key, 0o600);
    assert.equal(code, 2);
    assert.equal(finding('cluster-key').level, 'fail');
    assert.equal(finding('cluster-key').mend[0], `chmod 600 ${key}`);
  });

  test('a stopped daemon fails its socket, its images and its port, and says how to start it', async () => {
    await b.daemon.stop();
    const { code, finding } = await doctor(b, 'socket,images,swarm-port,peers');
    await b.daemon.restart();
    assert.equal(code, 2);
    assert.equal(finding('socket').level, 'fail');
    assert.match(finding('socket').mend[0] ?? '', /^systemctl .*layerswarm\.service$/);
    assert.equal(finding('images').level, 'fail');
    assert.equal(finding('swarm-port').level, 'fail');
    assert.equal(finding('peers').level, 'note');
  });

  test('a containerd that uses its own store fails the wiring, before and after its configuration says so', async () => {
    const { containerd } = b;
    containerd.useStore({ kind: 'builtin' });
    await containerd.restart();
    const { code, finding } = await doctor(b, 'wiring,images');
    assert.equal(code, 2);
    assert.equal(finding('wiring').level, 'fail');
    assert.match(finding('wiring').summary, /its own store/);
    assert.ok(finding('wiring').mend.includes('layerswarm setup'));
    assert.equal(finding('images').level, 'note');
    containerd.useStore({ kind: 'proxy', address: b.daemon.socket });
    await containerd.restart();
    assert.equal((await doctor(b, 'wiring')).code, 0);
  });
});
