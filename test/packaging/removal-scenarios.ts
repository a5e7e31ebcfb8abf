// The way back: from a wired host to one on which nothing tells that layerswarm ever was there.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { BenchHost, InstallBench } from './install-bench.ts';
import { differences, fileTree } from './lab/file-tree.ts';
import {
  CONTAINERD_CONFIG,
  CONTENT,
  DROP_IN,
  SERVICE,
  printedRestart,
} from './lab/installed-host.ts';

/** Registers them; they need both hosts wired and leave them as they were before the installation. */
export function removalScenarios(bench: () => InstallBench): void {
  test('the package cannot be removed while containerd uses it, and says what to do first', async () => {
    const { installed, containerd } = bench().a;
    const { code, stdout, stderr } = await installed.aptGet('remove');
    assert.notEqual(code, 0);
    assert.match(stdout + stderr, /layerswarm teardown/);
    assert.match(await installed.dpkgStatus(), /^.i /);
    assert.notEqual(await installed.pid(), 0);
    await containerd.assertReadable(bench().app.image);
    // dpkg remembers what it was asked for; an operator's next install clears that, as here.
    await installed.host.sh('echo layerswarm install | dpkg --set-selections');
  });

  test('teardown restores every file byte for byte and all images stay, with containerd restarted by it', async () => {
    const { a } = bench();
    const images = await a.containerd.images();
    await a.installed.succeed(['teardown', '--dry-run']);
    assert.ok(await a.installed.exists(DROP_IN));
    await a.installed.succeed(['teardown', '--yes', '--restart-containerd']);
    await assertUnwired(bench(), a, images);
  });

  test('teardown without --restart-containerd keeps the daemon until the operator has restarted containerd', async () => {
    const { b } = bench();
    const images = await b.containerd.images();
    const pid = await b.containerd.pid();
    const said = await b.installed.succeed(['teardown', '--yes']);
    assert.equal(await b.containerd.pid(), pid);
    // Still wired in the running containerd: it must go on to have a store.
    await b.containerd.assertReadable(bench().app.image);
    await b.containerd.restart(printedRestart(said));
    await assertUnwired(bench(), b, images);
  });

  test('a second teardown has nothing to do', async () => {
    for (const { installed } of bench().hosts)
      assert.match(await installed.succeed(['teardown', '--yes']), /nothing to do/i);
  });

  test('removed, it keeps configuration and identity; purged, it leaves nothing', async () => {
    const { a, b, old, large } = bench();
    for (const { installed, host } of [a, b]) {
      const removed = await installed.aptGet('remove');
      assert.equal(removed.code, 0, removed.stdout + removed.stderr);
      assert.ok(await installed.exists('/etc/layerswarm/config.toml'));
      assert.ok(await installed.exists('/var/lib/layerswarm'));
      assert.equal(await host.property(SERVICE, 'LoadState'), 'masked');
      const purged = await installed.aptGet('purge');
      assert.equal(purged.code, 0, purged.stdout + purged.stderr);
      assert.equal(await installed.dpkgStatus(), '');
    }
    for (const { before, host } of [a, b]) {
      assert.deepEqual(differences(before, await fileTree(host)), []);
      assert.equal(await host.sh(`find ${CONTENT} -name '*layerswarm*'`), '');
      assert.equal(await host.sh('pgrep -f [l]ayerswarm || true'), '');
      assert.equal(await host.failedUnits(), '');
    }
    // containerd is what it was: it has its images, and after another boot too.
    await a.host.reboot();
    assert.deepEqual(await a.containerd.contentPlugins(), ['content']);
    assert.equal(await a.containerd.runContainer(old.ref), `${old.image.greeting}\n`);
    await b.containerd.pull(large.ref);
    await b.containerd.assertReadable(large.image);
  });
}

async function assertUnwired(
  { app }: InstallBench,
  { installed, host, containerd, before }: BenchHost,
  images: readonly string[],
): Promise<void> {
  assert.deepEqual(await containerd.contentPlugins(), ['content']);
  assert.deepEqual(await containerd.images(), images);
  await containerd.assertReadable(app.image);
  assert.equal(await containerd.runContainer(app.ref), `${app.image.greeting}\n`);
  assert.equal(await installed.exists(DROP_IN), false);
  const now = await fileTree(host);
  // The file of before, or none where there was none.
  assert.equal(now.get(CONTAINERD_CONFIG), before.get(CONTAINERD_CONFIG));
  assert.equal((await installed.layerswarm(['teardown', '--check'])).code, 0);
}
