import assert from 'node:assert/strict';
import * as fs from 'node:fs';
import { test } from 'node:test';
import { CONTAINERD_IO, DEBIAN } from './configs.ts';
import { FakeHost, KEY } from './fake-host.ts';

const MAIN = '/etc/containerd/config.toml';
const DROP_IN = '/etc/containerd/conf.d/50-layerswarm.toml';
const OWN = '/etc/layerswarm/config.toml';
const CLUSTER_KEY = '/etc/layerswarm/cluster.key';

const hosts: readonly { id: string; version?: string; main: string | null }[] = [
  { id: "Debian's file", main: DEBIAN },
  {
    id: 'CRLF, no last line end, a list with comments',
    main: 'version = 2\r\nimports = [\r\n  "/x.toml" # x\r\n]',
  },
  { id: "containerd.io's version 1 file", version: '1.6.33', main: CONTAINERD_IO },
  { id: 'no file', version: '2.1.9', main: null },
  { id: 'another root', main: 'version = 2\nroot = "/data/c"\n' },
];

for (const { id, version, main } of hosts) {
  for (const restart of [[], ['--restart-containerd']]) {
    test(`setup and teardown leave every byte as it was: ${id} ${restart.join('')}`, async (t) => {
      const host = new FakeHost(t, { main, ...(version === undefined ? {} : { version }) });
      host.put('/root/k', `${KEY}\n`);
      host.put(OWN, '# ours\n[swarm]\n');
      const before = host.contents();
      const set = await host.layerswarm(
        'setup',
        '--yes',
        '--cluster-key',
        '/root/k',
        '--join',
        'a:1',
        ...restart,
      );
      assert.equal(set.code, 0, set.err);
      assert.equal((await host.layerswarm('teardown', '--check')).code, 1);
      const dry = await host.layerswarm('teardown', '--dry-run');
      assert.match(dry.out, /dry run: nothing was changed/);
      const { code, err } = await host.layerswarm('teardown', '--yes', ...restart);
      assert.equal(code, 0, err);
      assert.deepEqual(host.contents(), before);
      const check = await host.layerswarm('teardown', '--check');
      assert.equal(check.code, 0, check.out);
      assert.match((await host.layerswarm('teardown')).out, /nothing to do/);
    });
  }
}

test('containerd goes back to its own store before our daemon stops', async (t) => {
  const host = new FakeHost(t);
  await host.layerswarm('setup', '--yes', '--restart-containerd');
  host.calls.length = 0;
  const { code, out, err } = await host.layerswarm('teardown', '--yes', '--restart-containerd');
  assert.equal(code, 0, err);
  assert.deepEqual(host.calls, [
    'daemon-reload',
    'restart containerd.service',
    'disable --now layerswarm.socket layerswarm.service',
  ]);
  assert.match(out, /its own again, every image can be read; layerswarm is stopped/);
});

test('without the flag containerd is not restarted, our daemon goes on, and the commands are said in their order', async (t) => {
  const host = new FakeHost(t);
  await host.layerswarm('setup', '--yes', '--restart-containerd');
  host.calls.length = 0;
  const { out } = await host.layerswarm('teardown', '--yes', '--json');
  const { commands } = JSON.parse(out) as { commands: string[] };
  assert.deepEqual(commands, [
    'systemctl restart containerd.service',
    'systemctl disable --now layerswarm.socket layerswarm.service',
  ]);
  assert.deepEqual(host.calls, []);
  const check = await host.layerswarm('teardown', '--check');
  assert.equal(check.code, 1);
  assert.match(check.out, /until it is restarted/);
  // The same command finishes what was left.
  assert.equal((await host.layerswarm('teardown', '--yes', '--restart-containerd')).code, 0);
  assert.equal((await host.layerswarm('teardown', '--check')).code, 0);
});

test('a teardown that goes wrong leaves everything wired', async (t) => {
  const host = new FakeHost(t);
  await host.layerswarm('setup', '--yes', '--restart-containerd');
  const before = host.contents();
  host.trouble = 'does-not-start';
  const { code, err } = await host.layerswarm('teardown', '--yes', '--restart-containerd');
  assert.equal(code, 69);
  assert.match(err, /Everything is wired as it was/);
  assert.deepEqual(host.contents(), before);
  assert.ok(!host.calls.some((c) => c.startsWith('disable')));
});

test('a key that setup made stays, because there may be no copy', async (t) => {
  const host = new FakeHost(t);
  await host.layerswarm('setup', '--yes');
  const { out } = await host.layerswarm('teardown', '--yes');
  assert.equal(host.text(CLUSTER_KEY), `${KEY}\n`);
  assert.match(out, /cluster\.key stays/);
});

test('what the operator changed since setup stays, only ours goes', async (t) => {
  const host = new FakeHost(t);
  host.put(OWN, '[swarm]\n');
  host.put(CLUSTER_KEY, `${KEY}\n`, 0o600);
  await host.layerswarm('setup', '--yes', '--join', 'a:1');
  fs.appendFileSync(host.at(MAIN), '[grpc]\n  uid = 5\n');
  fs.appendFileSync(host.at(OWN), 'zone = "z"\n');
  fs.appendFileSync(host.at(DROP_IN), '# mine\n');
  const { code, out, err } = await host.layerswarm('teardown', '--yes');
  assert.equal(code, 0, err);
  assert.equal(host.text(MAIN), `${DEBIAN}[grpc]\n  uid = 5\n`);
  assert.equal(host.text(OWN), '[swarm]\nbootstrap = ["a:1"]\nzone = "z"\n');
  assert.ok(!fs.existsSync(host.at(DROP_IN)));
  assert.match(host.text(`${DROP_IN}.edited`), /# mine/);
  for (const path of [MAIN, OWN, DROP_IN])
    assert.ok(out.includes(`${path} was edited since setup`), path);
});

test('edits between two setups survive the teardown', async (t) => {
  const host = new FakeHost(t);
  await host.layerswarm('setup', '--yes');
  fs.appendFileSync(host.at(MAIN), '[grpc]\n  uid = 5\n');
  fs.rmSync(host.at(DROP_IN));
  await host.layerswarm('setup', '--yes');
  fs.writeFileSync(host.at(MAIN), host.text(MAIN).replace(/^imports.*\n/m, ''));
  await host.layerswarm('setup', '--yes');
  assert.equal((await host.layerswarm('teardown', '--yes')).code, 0);
  assert.equal(host.text(MAIN), `${DEBIAN}[grpc]\n  uid = 5\n`);
});

test('an import that others need by now stays', async (t) => {
  const host = new FakeHost(t);
  await host.layerswarm('setup', '--yes');
  host.put('/etc/containerd/conf.d/99-nvidia.toml', 'oom_score = -1\n');
  const { code, out } = await host.layerswarm('teardown', '--yes');
  assert.equal(code, 0);
  assert.match(host.text(MAIN), /^imports = /m);
  assert.match(out, /99-nvidia\.toml would not count otherwise/);
  assert.equal((await host.layerswarm('teardown', '--check')).code, 0);
});

test('containerd is never left without a content store', async (t) => {
  const host = new FakeHost(t);
  await host.layerswarm('setup', '--yes');
  host.put(
    '/etc/containerd/conf.d/90-x.toml',
    'disabled_plugins = ["io.containerd.content.v1.content"]\n',
  );
  const before = host.tree();
  const { code, err } = await host.layerswarm('teardown', '--yes');
  assert.equal(code, 80);
  assert.match(err, /\/etc\/containerd\/conf\.d\/90-x\.toml disables/);
  assert.deepEqual(host.tree(), before);
});

test("setup's record may be lost: the drop-in and the marked import go", async (t) => {
  const host = new FakeHost(t);
  await host.layerswarm('setup', '--yes');
  fs.rmSync(host.at('/var/lib/layerswarm'), { recursive: true });
  const { code, err } = await host.layerswarm('teardown', '--yes');
  assert.equal(code, 0, err);
  assert.equal(host.text(MAIN), DEBIAN);
  assert.ok(!fs.existsSync(host.at(DROP_IN)));
});

test('a damaged record or copy is said, and nothing is changed', async (t) => {
  const host = new FakeHost(t);
  await host.layerswarm('setup', '--yes');
  const setup = '/var/lib/layerswarm/setup';
  const copy = fs.readdirSync(host.at(setup)).find((n) => n.startsWith('containerd-config'))!;
  fs.appendFileSync(host.at(`${setup}/${copy}`), 'x');
  let before = host.tree();
  assert.equal((await host.layerswarm('teardown', '--yes')).code, 65);
  assert.deepEqual(host.tree(), before);
  fs.writeFileSync(host.at(`${setup}/manifest.json`), '{}');
  before = host.tree();
  assert.equal((await host.layerswarm('teardown', '--yes')).code, 65);
  assert.deepEqual(host.tree(), before);
});

test('a containerd that was removed meanwhile does not keep its files wired', async (t) => {
  const host = new FakeHost(t);
  host.put(CLUSTER_KEY, `${KEY}\n`, 0o600);
  await host.layerswarm('setup', '--yes');
  host.put('/unit-absent', '');
  for (const path of ['/usr/bin/containerd', '/proc/4242'])
    fs.rmSync(host.at(path), { recursive: true });
  const { code, err } = await host.layerswarm('teardown', '--yes');
  assert.equal(code, 0, err);
  assert.equal(host.text(MAIN), DEBIAN);
});

test('the copies are for root alone', async (t) => {
  const host = new FakeHost(t);
  host.put(CLUSTER_KEY, `${'cd'.repeat(32)}\n`, 0o600);
  host.put('/root/k', `${KEY}\n`);
  const { out } = await host.layerswarm('setup', '--yes', '--cluster-key', '/root/k');
  assert.match(out, /held another key/);
  const setup = host.at('/var/lib/layerswarm/setup');
  assert.equal(fs.statSync(setup).mode & 0o777, 0o700);
  for (const name of fs.readdirSync(setup)) {
    assert.equal(fs.statSync(`${setup}/${name}`).mode & 0o777, 0o600, name);
  }
  await host.layerswarm('teardown', '--yes');
  assert.equal(host.text(CLUSTER_KEY), `${'cd'.repeat(32)}\n`);
});
