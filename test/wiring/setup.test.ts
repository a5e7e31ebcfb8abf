import assert from 'node:assert/strict';
import * as fs from 'node:fs';
import { test } from 'node:test';
import { parse } from 'smol-toml';
import { CONTAINERD_IO, DEBIAN } from './configs.ts';
import { FakeHost, KEY } from './fake-host.ts';

const MAIN = '/etc/containerd/config.toml';
const DROP_IN = '/etc/containerd/conf.d/50-layerswarm.toml';
const OVERRIDE = '/etc/systemd/system/layerswarm.service.d/50-layerswarm-setup.conf';
const OWN = '/etc/layerswarm/config.toml';
const CLUSTER_KEY = '/etc/layerswarm/cluster.key';

test('a dry run shows the change and changes nothing', async (t) => {
  const host = new FakeHost(t);
  const before = host.tree();
  const { code, out } = await host.layerswarm('setup', '--dry-run');
  assert.equal(code, 0);
  assert.deepEqual(host.tree(), before);
  assert.deepEqual(host.calls, []);
  assert.match(out, /^\+imports = \["\/etc\/containerd\/conf\.d\/\*\.toml"\]/m);
  assert.match(out, /^\+disabled_plugins = \["io\.containerd\.content\.v1\.content"\]/m);
  assert.match(out, /dry run: nothing was changed/);
});

test('setup writes the drop-in, the import and a key, and does not restart containerd', async (t) => {
  const host = new FakeHost(t);
  const { code, out, err } = await host.layerswarm('setup', '--yes');
  assert.equal(err, '');
  assert.equal(code, 0);
  assert.match(
    host.text(MAIN),
    /^version = 2\nimports = \["\/etc\/containerd\/conf\.d\/\*\.toml"\]/,
  );
  assert.doesNotMatch(host.text(DROP_IN), /^version|^\[plugins/m);
  assert.equal(host.text(CLUSTER_KEY), `${KEY}\n`);
  assert.equal(fs.statSync(host.at(CLUSTER_KEY)).mode & 0o777, 0o600);
  assert.ok(!fs.existsSync(host.at(OVERRIDE)) && !fs.existsSync(host.at(OWN)));
  assert.deepEqual(host.calls, ['daemon-reload', 'enable layerswarm.socket layerswarm.service']);
  assert.match(out, /systemctl restart layerswarm\.service containerd\.service/);
  assert.match(out, /scp \/etc\/layerswarm\/cluster\.key/);
  assert.ok(!out.includes(KEY) && !err.includes(KEY));
});

test('a second run has nothing to do and writes nothing', async (t) => {
  const host = new FakeHost(t);
  await host.layerswarm('setup', '--yes');
  const before = host.tree();
  host.calls.length = 0;
  const again = await host.layerswarm('setup');
  assert.equal(again.code, 0);
  assert.match(again.out, /nothing to do/);
  assert.match(again.out, /systemctl restart/, 'containerd still runs with the old one');
  assert.deepEqual(host.tree(), before);
  assert.deepEqual(host.calls, []);
});

test('a containerd that isolates its namespaces is refused with the key, unless the host only serves', async (t) => {
  const isolated =
    'version = 2\n[plugins."io.containerd.metadata.v1.bolt"]\n  content_sharing_policy = "isolated"\n';
  const host = new FakeHost(t, { main: isolated });
  const before = host.tree();
  const refused = await host.layerswarm('setup', '--yes');
  assert.equal(refused.code, 80);
  assert.match(refused.err, /content_sharing_policy = "isolated".*Set it to "shared"/);
  assert.deepEqual(host.tree(), before);
  fs.mkdirSync(host.at('/etc/layerswarm'), { recursive: true });
  fs.writeFileSync(host.at(OWN), '[content]\nsharing_policy = "isolated"\n');
  assert.equal((await host.layerswarm('setup', '--yes')).code, 0);
});

test('without a terminal and without --yes nothing is changed', async (t) => {
  const host = new FakeHost(t);
  const before = host.tree();
  const { code, err } = await host.layerswarm('setup');
  assert.equal(code, 80);
  assert.match(err, /--yes/);
  assert.deepEqual(host.tree(), before);
});

test('JSON is one object with files, warnings and the commands that remain', async (t) => {
  const host = new FakeHost(t);
  const { out } = await host.layerswarm('setup', '--yes', '--json');
  const report = JSON.parse(out) as {
    outcome: string;
    files: { path: string }[];
    commands: string[];
  };
  assert.equal(report.outcome, 'done');
  assert.deepEqual(report.files.map((f) => f.path).sort(), [DROP_IN, MAIN, CLUSTER_KEY].sort());
  assert.deepEqual(report.commands, ['systemctl restart layerswarm.service containerd.service']);
  const again = JSON.parse((await host.layerswarm('setup', '--json')).out) as { outcome: string };
  assert.equal(again.outcome, 'nothing_to_do');
});

test('with --restart-containerd our daemon starts first, and containerd is asked afterwards', async (t) => {
  const host = new FakeHost(t);
  const { code, out } = await host.layerswarm('setup', '--yes', '--restart-containerd');
  assert.equal(code, 0);
  assert.deepEqual(host.calls, [
    'daemon-reload',
    'enable layerswarm.socket layerswarm.service',
    'start layerswarm.socket layerswarm.service',
    'restart layerswarm.service containerd.service',
  ]);
  assert.match(out, /every image can be read/);
  host.calls.length = 0;
  const again = await host.layerswarm('setup', '--restart-containerd');
  assert.equal(again.code, 0);
  assert.deepEqual(host.calls, []);
});

test('files that were written before and a containerd that was not restarted: --restart-containerd does it', async (t) => {
  const host = new FakeHost(t);
  await host.layerswarm('setup', '--yes');
  const before = host.tree();
  const { code } = await host.layerswarm('setup', '--yes', '--restart-containerd');
  assert.equal(code, 0);
  assert.ok(host.calls.includes('restart layerswarm.service containerd.service'));
  assert.deepEqual(host.tree(), before);
});

for (const trouble of ['does-not-start', 'images-unreadable'] as const) {
  test(`a restart that goes wrong (${trouble}) takes everything back`, async (t) => {
    const host = new FakeHost(t);
    const before = host.contents();
    host.trouble = trouble;
    const { code, err } = await host.layerswarm('setup', '--yes', '--restart-containerd');
    assert.notEqual(code, 0);
    assert.match(err, /runs with its own content store again/);
    assert.deepEqual(host.contents(), before);
    const end = ['restart containerd.service', 'stop layerswarm.socket layerswarm.service'];
    assert.deepEqual(host.calls.slice(-2), end);
  });
}

test('a daemon that does not answer leaves containerd alone', async (t) => {
  const host = new FakeHost(t);
  const before = host.contents();
  host.daemon = false;
  const { code, err } = await host.layerswarm('setup', '--yes', '--restart-containerd');
  assert.equal(code, 69);
  assert.match(err, /journalctl -u layerswarm.*containerd was not touched/);
  assert.deepEqual(host.contents(), before);
  assert.ok(!host.calls.some((c) => c.startsWith('restart')));
});

test('a daemon that ran before a failed setup goes on', async (t) => {
  const host = new FakeHost(t);
  host.active = true;
  host.trouble = 'images-unreadable';
  await host.layerswarm('setup', '--yes', '--restart-containerd');
  assert.equal(host.calls.at(-1), 'restart containerd.service');
});

test('without our units setup writes the files and says what has to run', async (t) => {
  const host = new FakeHost(t);
  fs.rmSync(host.at('/usr/lib/systemd/system/layerswarm.service'));
  const { code, out } = await host.layerswarm('setup', '--yes');
  assert.equal(code, 0);
  assert.deepEqual(host.calls, []);
  assert.match(out, /layerswarm daemon .*\n.*systemctl restart containerd\.service/);
  const forced = await host.layerswarm('setup', '--yes', '--restart-containerd');
  assert.match(forced.err, /layerswarm\.service is not installed/);
});

test('Docker on the host gets a word of warning', async (t) => {
  const host = new FakeHost(t);
  host.put('/run/docker.sock', '');
  assert.match(
    (await host.layerswarm('setup', '--dry-run')).out,
    /warning: docker pulls .*containerd-snapshotter/,
  );
});

test('without systemd there is no --restart-containerd', async (t) => {
  const host = new FakeHost(t, { systemd: false });
  const before = host.tree();
  const { code, err } = await host.layerswarm('setup', '--yes', '--restart-containerd');
  assert.equal(code, 80);
  assert.match(err, /systemd does not run this host/);
  assert.deepEqual(host.tree(), before);
});

test('another root directory: our configuration, the unit and the directory follow', async (t) => {
  const main = `version = 2\nroot = "/data/my ctrd"\n`;
  const host = new FakeHost(t, { main });
  host.put(OWN, '# mine\n[store]\n# where\ncache_max_bytes = 5 # five\n\n[log]\nlevel = "info"\n');
  assert.equal((await host.layerswarm('setup', '--yes')).code, 0);
  const content = '/data/my ctrd/io.containerd.content.v1.content';
  assert.equal(
    host.text(OWN),
    `# mine\n[store]\n# where\ncache_max_bytes = 5 # five\ncontent_directory = "${content}"\n\n[log]\nlevel = "info"\n`,
  );
  assert.match(
    host.text(OVERRIDE),
    /^ReadWritePaths="-\/data\/my ctrd\/io\.containerd\.content\.v1\.content"$/m,
  );
  assert.equal(fs.statSync(host.at(content)).mode & 0o777, 0o700);
  assert.equal((await host.layerswarm('setup', '--yes')).out.includes('nothing to do'), true);
});

test('a containerd of 2.x without a file gets one of version 3', async (t) => {
  const host = new FakeHost(t, { version: '2.1.9', main: null });
  assert.equal((await host.layerswarm('setup', '--yes')).code, 0);
  assert.match(host.text(MAIN), /^version = 3\nimports = /);
});

test("containerd.io's version 1 file becomes version 2, so that the built-in store really goes", async (t) => {
  const host = new FakeHost(t, { version: '1.6.33', main: CONTAINERD_IO });
  const { code, out, err } = await host.layerswarm('setup', '--yes', '--restart-containerd');
  assert.equal(code, 0, err);
  assert.match(host.text(MAIN), /^version = 2$/m);
  assert.match(host.text(MAIN), /^disabled_plugins = \["io\.containerd\.grpc\.v1\.cri"\]$/m);
  assert.match(out, /configuration of version 1/);
});

test('a symbolic link stays one, owner and mode of the file stay', async (t) => {
  const host = new FakeHost(t, { main: null });
  host.put('/srv/etc/ctrd.toml', DEBIAN, 0o640);
  fs.mkdirSync(host.at('/etc/containerd'), { recursive: true });
  fs.symlinkSync('../../srv/etc/ctrd.toml', host.at(MAIN));
  assert.equal((await host.layerswarm('setup', '--yes')).code, 0);
  assert.equal(fs.readlinkSync(host.at(MAIN)), '../../srv/etc/ctrd.toml');
  assert.match(host.text('/srv/etc/ctrd.toml'), /imports/);
  assert.equal(fs.statSync(host.at('/srv/etc/ctrd.toml')).mode & 0o777, 0o640);
});

const refusals: readonly {
  id: string;
  main?: string;
  extra?: Record<string, string>;
  code: number;
  says: RegExp;
}[] = [
  {
    id: 'another content proxy',
    main: `${DEBIAN}[proxy_plugins.stargz]\ntype = "content"\naddress = "/s"\n`,
    code: 80,
    says: /"stargz" at \/s \(\/etc\/containerd\/config\.toml\)/,
  },
  {
    id: 'the built-in store is required',
    main: 'version = 2\nrequired_plugins = ["io.containerd.content.v1.content"]\n',
    code: 80,
    says: /required_plugins/,
  },
  {
    id: 'our name leads elsewhere',
    main: `${DEBIAN}[proxy_plugins.layerswarm]\ntype = "content"\naddress = "/elsewhere"\n`,
    code: 80,
    says: /setup did not write/,
  },
  {
    id: 'a later drop-in leads elsewhere',
    main: `imports = ["/etc/containerd/conf.d/*.toml"]\n${DEBIAN}`,
    extra: {
      [DROP_IN]: 'disabled_plugins = []\n',
      '/etc/containerd/conf.d/60.toml':
        '[proxy_plugins.layerswarm]\ntype = "content"\naddress = "/elsewhere"\n',
    },
    code: 80,
    says: /would use \/elsewhere .*conf\.d\/60\.toml/,
  },
  {
    id: 'a sleeping drop-in would wake',
    extra: { '/etc/containerd/conf.d/10-old.toml': 'oom_score = -5\n' },
    code: 80,
    says: /oom_score/,
  },
  { id: 'no TOML', main: 'version = 2\nx = = 1\n', code: 78, says: /config\.toml:2:/ },
  {
    id: 'our own configuration is wrong',
    extra: { [OWN]: '[log]\nlevle = "info"\n' },
    code: 78,
    says: /levle/,
  },
  { id: 'the key is none', extra: { [CLUSTER_KEY]: 'xyz\n' }, code: 78, says: /cluster key/ },
];
for (const { id, main, extra = {}, code, says } of refusals) {
  test(`setup refuses and changes nothing: ${id}`, async (t) => {
    const host = new FakeHost(t, main === undefined ? {} : { main });
    for (const [path, text] of Object.entries(extra)) host.put(path, text, 0o600);
    const before = host.tree();
    const result = await host.layerswarm('setup', '--yes');
    assert.equal(result.code, code, result.err);
    assert.match(result.err, says);
    assert.deepEqual(host.tree(), before);
  });
}

test('other proxies and other disabled plugins are none of our business', async (t) => {
  const main = `version = 2\ndisabled_plugins = ["io.containerd.nri.v1.nri"]\n[proxy_plugins.stargz]\ntype = "snapshot"\naddress = "/s"\n`;
  const host = new FakeHost(t, { main });
  assert.equal((await host.layerswarm('setup', '--yes')).code, 0);
});

test('an import that is there already is enough', async (t) => {
  const main = `imports = [ '/etc/containerd/conf.d/*.toml' ]\n${DEBIAN}`;
  const host = new FakeHost(t, { main });
  assert.equal((await host.layerswarm('setup', '--yes')).code, 0);
  assert.equal(host.text(MAIN), main);
});

test('a host that was wired by hand is left so', async (t) => {
  const main = `version = 2\ndisabled_plugins = ["io.containerd.content.v1.content"]\n[proxy_plugins.layerswarm]\ntype = "content"\naddress = "/run/layerswarm/layerswarm.sock"\n`;
  const host = new FakeHost(t, { main });
  host.put(CLUSTER_KEY, `${KEY}\n`, 0o600);
  const before = host.tree();
  const { code, out } = await host.layerswarm('setup');
  assert.equal(code, 0);
  assert.match(out, /by hand already.*\n.*nothing to do/);
  assert.deepEqual(host.tree(), before);
  const undone = await host.layerswarm('teardown', '--yes');
  assert.equal(undone.code, 80);
  assert.match(
    undone.err,
    /\/etc\/containerd\/config\.toml disables io\.containerd\.content\.v1\.content/,
  );
});

test('peers to join are added once, the key comes from the file that is named', async (t) => {
  const host = new FakeHost(t);
  host.put('/root/k', `${'cd'.repeat(32)}\n`);
  host.put(OWN, '[swarm]\nbootstrap = [\n  "a:7878", # first\n]\n');
  const args = [
    'setup',
    '--yes',
    '--join',
    'a:7878',
    'b:7878',
    '[::1]:7',
    '--cluster-key',
    '/root/k',
  ];
  const { code, out, err } = await host.layerswarm(...args);
  assert.equal(code, 0, err);
  assert.equal(
    host.text(OWN),
    '[swarm]\nbootstrap = [\n  "a:7878", # first\n  "b:7878",\n  "[::1]:7",\n]\n',
  );
  assert.equal(host.text(CLUSTER_KEY), `${'cd'.repeat(32)}\n`);
  assert.equal(fs.statSync(host.at(CLUSTER_KEY)).mode & 0o777, 0o600);
  assert.ok(!out.includes('cdcd'));
  assert.match((await host.layerswarm(...args)).out, /nothing to do/);
});

test('to join a swarm its key is needed, and an address must be one', async (t) => {
  const host = new FakeHost(t);
  const before = host.tree();
  const keyless = await host.layerswarm('setup', '--yes', '--join', 'a:7878');
  assert.equal(keyless.code, 80);
  assert.match(keyless.err, /--cluster-key/);
  host.put(CLUSTER_KEY, `${KEY}\n`, 0o600);
  assert.equal((await host.layerswarm('setup', '--yes', '--join', 'nonsense')).code, 78);
  fs.rmSync(host.at('/etc/layerswarm'), { recursive: true });
  assert.deepEqual(host.tree(), before);
});

test('a key that others may read is closed to them', async (t) => {
  const host = new FakeHost(t);
  host.put(CLUSTER_KEY, `${KEY}\n`, 0o644);
  assert.equal((await host.layerswarm('setup', '--yes')).code, 0);
  assert.equal(fs.statSync(host.at(CLUSTER_KEY)).mode & 0o777, 0o600);
});

const managed: readonly {
  id: string;
  argv: string[];
  parent?: string;
  unit?: string;
  says: RegExp;
}[] = [
  {
    id: 'k3s',
    argv: [
      '/var/lib/rancher/k3s/data/current/bin/containerd',
      '-c',
      '/var/lib/rancher/k3s/agent/etc/containerd/config.toml',
      '--root',
      '/var/lib/rancher/k3s/agent/containerd',
    ],
    unit: 'k3s.service',
    says: /k3s\/agent\/etc\/containerd\/config-v3\.toml\.tmpl[\s\S]*template "base"/,
  },
  {
    id: 'rke2',
    argv: ['/usr/bin/containerd', '-c', '/var/lib/rancher/rke2/agent/etc/containerd/config.toml'],
    unit: 'rke2-agent.service',
    says: /rke2-server or rke2-agent/,
  },
  {
    id: 'k0s',
    argv: ['/var/lib/k0s/bin/containerd', '--config=/etc/k0s/containerd.toml'],
    unit: 'k0sworker.service',
    says: /\/etc\/k0s\/containerd\.d\//,
  },
  {
    id: 'microk8s',
    argv: [
      '/snap/microk8s/7/bin/containerd',
      '--config',
      '/var/snap/microk8s/7/args/containerd.toml',
    ],
    unit: 'snap.microk8s.daemon-containerd.service',
    says: /containerd-template\.toml/,
  },
  {
    id: 'docker',
    argv: ['/usr/bin/containerd', '--config', '/var/run/docker/containerd/containerd.toml'],
    parent: 'dockerd',
    unit: 'docker.service',
    says: /containerd-snapshotter/,
  },
];
for (const { id, argv, parent, unit, says } of managed) {
  test(`the containerd of ${id} is left alone, and what to do instead is said`, async (t) => {
    const host = new FakeHost(t, {
      argv,
      main: null,
      ...(parent === undefined ? {} : { parent }),
      ...(unit === undefined ? {} : { unit }),
    });
    host.put('/unit-absent', '');
    const before = host.tree();
    const { code, out } = await host.layerswarm('setup', '--yes', '--restart-containerd');
    assert.equal(code, 81);
    assert.match(out, says);
    assert.deepEqual(host.tree(), before);
    assert.deepEqual(host.calls, []);
  });
}

test('of several containerds one has to be named', async (t) => {
  const host = new FakeHost(t);
  host.process('77', ['/opt/bin/containerd', '--config', '/opt/ctrd.toml'], {
    unit: 'other.service',
  });
  const { code, err } = await host.layerswarm('setup', '--yes');
  assert.equal(code, 80);
  assert.match(
    err,
    /--containerd-config FILE: .*config\.toml \(containerd\.service\), \/opt\/ctrd\.toml \(other\.service\)/,
  );
  assert.equal((await host.layerswarm('setup', '--dry-run', '--containerd-config', MAIN)).code, 0);
  assert.equal(
    (await host.layerswarm('setup', '--dry-run', '--containerd-config', '/no')).code,
    66,
  );
});

test('the containerd of a container is not ours', async (t) => {
  const host = new FakeHost(t);
  host.process('77', ['/usr/bin/containerd', '--config', '/kind.toml'], {});
  for (const [pid, ns] of [
    ['self', 'pid:[1]'],
    ['4242', 'pid:[1]'],
    ['77', 'pid:[2]'],
  ]) {
    fs.mkdirSync(host.at(`/proc/${pid}/ns`), { recursive: true });
    fs.symlinkSync(ns!, host.at(`/proc/${pid}/ns/pid`));
  }
  assert.equal((await host.layerswarm('setup', '--dry-run')).code, 0);
});

test('no containerd and an old one are told apart', async (t) => {
  const host = new FakeHost(t, { argv: null });
  host.put('/unit-absent', '');
  assert.equal(
    (await host.layerswarm('setup', '--dry-run')).code,
    0,
    'it is installed and does not run',
  );
  fs.rmSync(host.at('/usr/bin/containerd'));
  assert.equal((await host.layerswarm('setup', '--dry-run')).code, 66);
  const old = new FakeHost(t, { version: '1.5.9' });
  assert.match((await old.layerswarm('setup', '--yes')).err, /1\.5\.9 is too old/);
});

test('the only door is the content store', async (t) => {
  const host = new FakeHost(t);
  assert.equal((await host.layerswarm('setup', '--door', 'mirror')).code, 64);
  assert.equal((await host.layerswarm('setup', '--door', 'content', '--dry-run')).code, 0);
});

test('a drop-in of an older setup is renewed', async (t) => {
  const host = new FakeHost(t);
  await host.layerswarm('setup', '--yes');
  host.put(OWN, '[content]\nsocket_path = "/run/other.sock"\n');
  assert.equal((await host.layerswarm('setup', '--yes')).code, 0);
  assert.match(JSON.stringify(parse(host.text(DROP_IN))), /\/run\/other\.sock/);
});
