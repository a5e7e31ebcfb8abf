// From the package file to two hosts that pull from each other, and over a reboot.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { InstallBench } from './install-bench.ts';
import { differences, fileTree } from './lab/file-tree.ts';
import {
  CONTAINERD_CONFIG,
  CONTENT,
  DROP_IN,
  SERVICE,
  printedRestart,
} from './lab/installed-host.ts';

const KEY = '/etc/layerswarm/cluster.key';

/** Registers them; they leave both hosts wired, in one swarm, with `app` and `more` on both. */
export function setupScenarios(bench: () => InstallBench): void {
  test('apt installs the file without a network, leaves containerd alone, and starts nothing without a key', async () => {
    for (const { installed, host, containerd } of bench().hosts) {
      const pid = await containerd.pid();
      const said = await installed.apt(bench().files.current);
      assert.equal(await installed.dpkgStatus(), `ii  ${bench().versions.current}-1`);
      assert.match(said, /layerswarm setup/);
      assert.equal(
        await host.sh(`systemctl is-enabled ${SERVICE} layerswarm.socket || true`),
        'disabled\ndisabled',
      );
      assert.equal(await host.property(SERVICE, 'ActiveState'), 'inactive');
      assert.equal(await containerd.pid(), pid);
      assert.deepEqual(await containerd.contentPlugins(), ['content']);
      assert.equal((await installed.layerswarm(['teardown', '--check'])).code, 0);
      assert.equal(await installed.succeed(['--version']), `${bench().versions.current}\n`);
    }
  });

  test('setup --dry-run shows the changes and makes none; without a terminal setup wants --yes', async () => {
    const { installed, host } = bench().a;
    const before = await fileTree(host);
    const shown = await installed.succeed(['setup', '--dry-run']);
    assert.match(shown, /50-layerswarm\.toml/);
    assert.match(shown, /^\+.*conf\.d/m);
    assert.deepEqual(differences(before, await fileTree(host)), []);
    const refused = await installed.layerswarm(['setup']);
    assert.notEqual(refused.code, 0);
    assert.match(refused.stdout + refused.stderr, /--yes/);
    assert.deepEqual(differences(before, await fileTree(host)), []);
  });

  test('setup takes over the content directory: images from before are readable and run', async () => {
    const { a, old } = bench();
    const said = await a.installed.succeed(['setup', '--yes', '--restart-containerd']);
    assert.deepEqual(await a.containerd.contentPlugins(), ['layerswarm']);
    assert.deepEqual(await a.containerd.images(), [old.ref]);
    await a.containerd.assertReadable(old.image);
    assert.equal(await a.containerd.runContainer(old.ref), `${old.image.greeting}\n`);
    assert.equal(await a.host.sh(`stat -c '%a %U' ${KEY}`), '600 root');
    const key = await a.host.sh(`cat ${KEY}`);
    assert.ok(!said.includes(key), 'setup printed the key');
    assert.equal(await a.host.failedUnits(), '');
  });

  test('a second setup has nothing to do and touches nothing', async () => {
    const { installed, host, containerd } = bench().a;
    const [before, pid] = [await fileTree(host), await containerd.pid()];
    const said = await installed.succeed(['setup', '--yes', '--restart-containerd']);
    assert.match(said, /nothing to do/i);
    assert.deepEqual(differences(before, await fileTree(host)), []);
    assert.equal(await containerd.pid(), pid);
  });

  test("setup with the swarm's key joins it, and leaves the restart of containerd to the operator", async () => {
    const { a, b } = bench();
    const key = await a.host.sh(`cat ${KEY}`);
    await b.host.run(['sh', '-c', 'umask 077; cat > /root/swarm.key'], { input: `${key}\n` });
    const pid = await b.containerd.pid();
    const join = ['--cluster-key', '/root/swarm.key', '--join', `${a.host.address}:7878`];
    const said = await b.installed.succeed(['setup', '--yes', ...join]);
    await b.host.sh('rm /root/swarm.key');
    assert.equal(await b.containerd.pid(), pid);
    assert.deepEqual(await b.containerd.contentPlugins(), ['content']);
    await b.containerd.restart(printedRestart(said));
    assert.deepEqual(await b.containerd.contentPlugins(), ['layerswarm']);
    assert.ok(await b.installed.exists(CONTAINERD_CONFIG));
    for (const { installed } of bench().hosts) await installed.meshed(1);
  });

  test('doctor finds nothing that failed', async () => {
    for (const { installed } of bench().hosts) await installed.assertHealthy();
  });

  test('a pull through it comes from the registry at the first host and from that host at the second', async () => {
    const { a, b, app, registry } = bench();
    await bench().seed(app);
    await b.containerd.pull(app.ref);
    assert.deepEqual(await registry.layerGets(app.image), []);
    for (const { containerd } of [a, b]) {
      await containerd.assertReadable(app.image);
      assert.equal(await containerd.runContainer(app.ref), `${app.image.greeting}\n`);
    }
    // What containerd pulled lies in its own directory, in its own layout.
    const layer = app.image.layers.at(-1)!.digest.replace('sha256:', 'blobs/sha256/');
    assert.ok(await b.installed.exists(`${CONTENT}/${layer}`));
  });

  test('after a reboot the host is in the swarm again, has its images, and pulls', async () => {
    const { a, b, app, more, registry } = bench();
    const { peer_id } = await b.installed.status();
    await b.host.reboot();
    assert.equal(await b.host.failedUnits(), '');
    assert.deepEqual(await b.containerd.contentPlugins(), ['layerswarm']);
    assert.deepEqual(await b.containerd.images(), [app.ref]);
    await b.containerd.assertReadable(app.image);
    assert.equal((await b.installed.status()).peer_id, peer_id);
    await bench().seed(more);
    await b.containerd.pull(more.ref);
    assert.deepEqual(await registry.layerGets(more.image), []);
    assert.equal(await b.containerd.runContainer(more.ref), `${more.image.greeting}\n`);
    assert.ok(await a.installed.exists(DROP_IN));
  });
}
