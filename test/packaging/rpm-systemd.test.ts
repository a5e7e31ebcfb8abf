// The rpm on a booted systemd. Debian's rpm 4.20 on trixie stands in for Fedora's and RHEL's: package, payload, scriptlets
// and units are the real ones and run against a real systemd. What cannot be seen here: whether the names in Requires and
// Recommends exist in those distributions (--nodeps), their presets (theirs leave our units disabled: `systemctl enable
// --now` after the installation), their SELinux policy, and dnf.
import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import { buildImage } from '../fixtures/image.ts';
import type { TestImage } from '../fixtures/image.ts';
import { cacheDir, debianTools } from '../host/lab/debian-packages.ts';
import { LabNetwork } from '../host/lab/netns.ts';
import { LabRegistry } from '../host/lab/registry.ts';
import { NOTHING_LEFT, hostReason, leftBehind } from '../host/swarm-lab.ts';
import { BootedHost } from './lab/booted-host.ts';
import { differences, fileTree } from './lab/file-tree.ts';
import { DROP_IN, InstalledHost, SERVICE } from './lab/installed-host.ts';
import { builtPackages } from './lab/packages.ts';
import { SuiteContainerd } from './lab/suite-containerd.ts';

/** rpm has no purge: these stay for a later installation, and the README says so. */
const KEPT = [/^\+ \/etc\/layerswarm(\/|$)/, /^\+ \/var\/lib\/layerswarm(\/|$)/];

interface Bench extends AsyncDisposable {
  readonly host: BootedHost;
  readonly installed: InstalledHost;
  readonly containerd: SuiteContainerd;
  readonly image: TestImage;
  readonly ref: string;
  readonly versions: { readonly current: string; readonly next: string };
}

suite('the rpm on booted trixie', { skip: hostReason() ?? false, timeout: 600_000 }, () => {
  let made: Bench | undefined;
  const bench = (): Bench => {
    assert.ok(made !== undefined);
    return made;
  };
  before(async () => {
    made = await createBench();
  });
  after(async () => {
    await made?.[Symbol.asyncDispose]();
    assert.deepEqual(await leftBehind(), NOTHING_LEFT);
  });

  test('rpm -i runs its scriptlets: units known, containerd left alone, files verified', async () => {
    const { host, installed, containerd } = bench();
    const pid = await containerd.pid();
    const { code, stdout, stderr } = await installed.rpm('--nodeps', '-i', '/root/current.rpm');
    assert.equal(code, 0, stdout + stderr);
    assert.match(stdout + stderr, /layerswarm setup/);
    assert.equal(await host.property(SERVICE, 'LoadState'), 'loaded');
    assert.equal(await host.property('layerswarm.socket', 'LoadState'), 'loaded');
    assert.equal(await containerd.pid(), pid);
    await assertVerified(bench());
  });

  test('setup wires this host too, pulls go through it, and doctor finds nothing that failed', async () => {
    const { host, installed, containerd, image, ref } = bench();
    await host.sh(`systemctl enable layerswarm.socket ${SERVICE}`);
    await installed.succeed(['setup', '--yes', '--restart-containerd']);
    assert.deepEqual(await containerd.contentPlugins(), ['layerswarm']);
    await containerd.pull(ref);
    await containerd.assertReadable(image);
    assert.equal(await containerd.runContainer(ref), `${image.greeting}\n`);
    await installed.assertHealthy();
  });

  test('rpm -e is refused while containerd uses it', async () => {
    const { installed, containerd, image } = bench();
    const { code, stdout, stderr } = await installed.rpm('-e', 'layerswarm');
    assert.notEqual(code, 0);
    assert.match(stdout + stderr, /layerswarm teardown/);
    assert.equal((await installed.rpm('-q', 'layerswarm')).code, 0);
    await containerd.assertReadable(image);
  });

  test('rpm -U replaces the daemon and not containerd; -U --oldpackage goes back; identity and images stay', async () => {
    const { host, installed, containerd, image, versions } = bench();
    const { peer_id } = await installed.status();
    const pid = await containerd.pid();
    for (const [file, version] of [
      ['next', versions.next],
      ['current', versions.current],
    ] as const) {
      const daemon = await installed.pid();
      const upgrade = ['--nodeps', '-U', '--oldpackage', `/root/${file}.rpm`];
      const { code, stdout, stderr } = await installed.rpm(...upgrade);
      assert.equal(code, 0, stdout + stderr);
      const { stdout: installed_version } = await installed.rpm(
        '-q',
        '--qf',
        '%{VERSION}',
        'layerswarm',
      );
      assert.equal(installed_version, version);
      assert.notEqual(await installed.pid(), daemon);
      await containerd.storeAnswers();
      await containerd.assertReadable(image);
      assert.equal((await installed.status()).peer_id, peer_id);
      assert.equal(await containerd.pid(), pid);
      await assertVerified(bench());
    }
    assert.equal(await host.failedUnits(), '');
    assert.equal(await host.sh(`systemctl is-enabled ${SERVICE}`), 'enabled');
  });

  test('teardown, rpm -e: containerd is as before, and only configuration and state are left', async () => {
    const { host, installed, containerd, image, ref } = bench();
    await installed.succeed(['teardown', '--yes', '--restart-containerd']);
    assert.equal(await installed.exists(DROP_IN), false);
    const { code, stdout, stderr } = await installed.rpm('-e', 'layerswarm');
    assert.equal(code, 0, stdout + stderr);
    assert.deepEqual(await containerd.contentPlugins(), ['content']);
    await containerd.assertReadable(image);
    assert.equal(await containerd.runContainer(ref), `${image.greeting}\n`);
    const changed = differences(before_tree(), await fileTree(host));
    assert.deepEqual(
      changed.filter((line) => !KEPT.some((kept) => kept.test(line))),
      [],
    );
    assert.equal(await host.sh('pgrep -f [l]ayerswarm || true'), '');
    assert.equal(await host.failedUnits(), '');
  });

  let tree: ReadonlyMap<string, string> = new Map();
  const before_tree = (): ReadonlyMap<string, string> => tree;

  async function createBench(): Promise<Bench> {
    const tools = await debianTools();
    const current = await builtPackages();
    const next = await builtPackages({ next: true });
    await using stack = new AsyncDisposableStack();
    const network = stack.use(await LabNetwork.create());
    const registry = stack.use(await LabRegistry.start(await network.addHost('hub'), tools));
    const recipe = { seed: 'booted', size_bytes: 4_000_000, busybox: tools.busybox };
    const image = await buildImage(recipe, cacheDir());
    const ref = await registry.push(image, 'app', 'v1');
    const host = stack.use(await BootedHost.boot(await network.addHost('a'), 'trixie'));
    await host.take(current.rpm, 'current.rpm');
    await host.take(next.rpm, 'next.rpm');
    tree = await fileTree(host);
    const kept = stack.move();
    return {
      host,
      installed: new InstalledHost(host),
      containerd: new SuiteContainerd(host),
      image,
      ref,
      versions: { current: current.version, next: next.version },
      [Symbol.asyncDispose]: async () => kept.disposeAsync(),
    };
  }
});

/** `rpm -V`: every installed file is as it was packaged. Dependencies are not looked at: there is no rpm distribution below. */
async function assertVerified({ installed }: Bench): Promise<void> {
  const { code, stdout } = await installed.rpm('-V', '--nodeps', 'layerswarm');
  assert.equal(stdout, '');
  assert.equal(code, 0);
}
