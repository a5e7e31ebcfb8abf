// The lab of booted hosts by itself, without the product.
import assert from 'node:assert/strict';
import { after, suite, test } from 'node:test';
import { buildImage } from '../../fixtures/image.ts';
import { cacheDir, debianTools } from '../../host/lab/debian-packages.ts';
import { LabNetwork } from '../../host/lab/netns.ts';
import { LabRegistry } from '../../host/lab/registry.ts';
import { NOTHING_LEFT, leftBehind } from '../../host/swarm-lab.ts';
import { BootedHost } from './booted-host.ts';
import { differences, fileTree } from './file-tree.ts';
import { SuiteContainerd } from './suite-containerd.ts';

const LINE = { trixie: '1.7.', bookworm: '1.6.' } as const;

suite('booted hosts', { timeout: 600_000 }, () => {
  after(async () => assert.deepEqual(await leftBehind(), NOTHING_LEFT));

  for (const name of ['trixie', 'bookworm'] as const) {
    test(`${name}: systemd boots without a failed unit, its containerd pulls and runs, and a reboot keeps both`, async () => {
      const tools = await debianTools();
      const recipe = { seed: 'booted', size_bytes: 4_000_000, busybox: tools.busybox };
      const image = await buildImage(recipe, cacheDir());
      await using network = await LabNetwork.create();
      await using registry = await LabRegistry.start(await network.addHost('hub'), tools);
      const ref = await registry.push(image, 'app', 'v1');
      await using host = await BootedHost.boot(await network.addHost('a'), name);
      const containerd = new SuiteContainerd(host);
      assert.equal(await host.failedUnits(), '');
      assert.ok((await containerd.version()).startsWith(LINE[name]), await containerd.version());
      await containerd.pull(ref);
      await containerd.assertReadable(image);
      assert.equal(await containerd.runContainer(ref), `${image.greeting}\n`);
      const before = await fileTree(host);
      await host.reboot();
      assert.equal(await host.failedUnits(), '');
      assert.deepEqual(await containerd.images(), [ref]);
      assert.equal(await containerd.runContainer(ref), `${image.greeting}\n`);
      assert.deepEqual(differences(before, await fileTree(host)), []);
    });
  }

  test('two hosts at once are two systems: powering one off leaves the other running', async () => {
    await using network = await LabNetwork.create();
    await using a = await BootedHost.boot(await network.addHost('a'), 'trixie');
    await using b = await BootedHost.boot(await network.addHost('b'), 'trixie');
    const containerd = new SuiteContainerd(b);
    const pid = await containerd.pid();
    await b.sh('touch /root/mine');
    await a.powerOff();
    assert.equal(await b.sh('systemctl is-system-running'), 'running');
    assert.equal(await containerd.pid(), pid);
    await a.boot();
    assert.notEqual((await a.tryRun(['test', '-e', '/root/mine'])).code, 0);
    assert.notEqual(await a.sh('cat /etc/machine-id'), await b.sh('cat /etc/machine-id'));
  });
});
