// A host whose containerd keeps its data elsewhere: the service may write there only because setup says so to systemd.
import assert from 'node:assert/strict';
import { after, suite, test } from 'node:test';
import { buildImage } from '../fixtures/image.ts';
import { cacheDir, debianTools } from '../host/lab/debian-packages.ts';
import { LabNetwork } from '../host/lab/netns.ts';
import { LabRegistry } from '../host/lab/registry.ts';
import { NOTHING_LEFT, hostReason, leftBehind } from '../host/swarm-lab.ts';
import { BootedHost } from './lab/booted-host.ts';
import { differences, fileTree } from './lab/file-tree.ts';
import { CONTAINERD_CONFIG, InstalledHost, SERVICE } from './lab/installed-host.ts';
import { builtPackages } from './lab/packages.ts';
import { SuiteContainerd } from './lab/suite-containerd.ts';

/** Below the one directory of the lab that is no overlay itself. */
const ROOT = '/var/lib/containerd/moved';
const CONTENT = `${ROOT}/io.containerd.content.v1.content`;
const OVERRIDE = '/etc/systemd/system/layerswarm.service.d/50-layerswarm-setup.conf';

suite('a containerd with another root', { skip: hostReason() ?? false, timeout: 300_000 }, () => {
  after(async () => assert.deepEqual(await leftBehind(), NOTHING_LEFT));

  test('setup opens that directory for the hardened service, pulls land in it, and teardown with purge leaves only an empty staging folder there', async () => {
    const tools = await debianTools();
    const { deb } = await builtPackages();
    const recipe = { seed: 'booted', size_bytes: 4_000_000, busybox: tools.busybox };
    const image = await buildImage(recipe, cacheDir());
    await using network = await LabNetwork.create();
    await using registry = await LabRegistry.start(await network.addHost('hub'), tools);
    const ref = await registry.push(image, 'app', 'v1');
    await using host = await BootedHost.boot(await network.addHost('a'), 'trixie');
    const [installed, containerd] = [new InstalledHost(host), new SuiteContainerd(host)];
    await host.sh(`sed -i '1i root = "${ROOT}"' ${CONTAINERD_CONFIG}`);
    await containerd.restart();
    await containerd.pull(ref);
    const file = await host.take(deb, 'current.deb');
    const before = await fileTree(host);

    await installed.apt(file);
    await installed.succeed(['setup', '--yes', '--restart-containerd']);
    assert.deepEqual(await containerd.contentPlugins(), ['layerswarm']);
    assert.match(await host.property(SERVICE, 'ReadWritePaths'), new RegExp(`${CONTENT}\\b`));
    assert.match(await host.sh(`cat ${OVERRIDE}`), /ReadWritePaths=/);
    await containerd.assertReadable(image);
    await containerd.removeImage(ref);
    await containerd.pull(ref);
    await containerd.assertReadable(image);
    assert.equal(await containerd.runContainer(ref), `${image.greeting}\n`);
    const layer = image.layers.at(-1)!.digest.replace('sha256:', 'blobs/sha256/');
    assert.ok(await installed.exists(`${CONTENT}/${layer}`));
    await installed.assertHealthy();

    await installed.succeed(['teardown', '--yes', '--restart-containerd']);
    assert.deepEqual(await containerd.contentPlugins(), ['content']);
    assert.equal(await containerd.runContainer(ref), `${image.greeting}\n`);
    const { code, stdout, stderr } = await installed.aptGet('purge');
    assert.equal(code, 0, stdout + stderr);
    assert.deepEqual(differences(before, await fileTree(host)), []);
    // Teardown took the path out of the configuration, so purge knows only the usual one: the staging folder stays, empty.
    assert.equal(await host.sh(`find ${CONTENT}/.layerswarm -type f -size +8k`), '');
    assert.equal(await host.sh(`find ${ROOT} -name '*layerswarm*'`), `${CONTENT}/.layerswarm`);
    assert.equal(await host.failedUnits(), '');
  });
});
