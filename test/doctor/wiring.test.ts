// What the wiring check makes of what it saw, and the texts that is read from.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parsePlugins, parseProxyAddresses } from '../../src/host/doctor/containerd-plugins.ts';
import {
  chooseRunning,
  effectiveConfig,
  parseVersion,
  startOf,
} from '../../src/host/doctor/containerd-process.ts';
import { parseImages } from '../../src/host/doctor/image-walk.ts';
import { judgeWiring, type WiringFacts } from '../../src/host/doctor/wiring.ts';
import { problemOf, type Verdict } from './doctor-bench.ts';

const D = `sha256:${'ab'.repeat(32)}`;
const SOCKET = '/run/layerswarm/layerswarm.sock';
type Runs = Extract<WiringFacts, { kind: 'runs' }>;
type Dump = Exclude<Runs['effective'], { failure: string }>;

const dump = (over: Partial<Dump> = {}): Dump => ({
  root: '/var/lib/containerd',
  socket: '/run/containerd/containerd.sock',
  builtin_disabled: true,
  builtin_required: false,
  content_proxies: [{ name: 'layerswarm', address: SOCKET }],
  sharing_policy: 'shared',
  cri_registries: { config_path: '', has_mirrors: false, pulls_locally: false },
  ...over,
});
const loaded = (ids: readonly string[], address = SOCKET): Runs['running'] => ({
  rows: ids.map((id) => ({ type: 'io.containerd.content.v1', id, status: 'ok' })),
  addresses: new Map([['layerswarm', address]]),
});
const wiring = (over: Partial<Runs> = {}): Runs => ({
  kind: 'runs',
  socket_path: SOCKET,
  sharing_policy: 'shared',
  unused: undefined,
  config_file: '/etc/containerd/config.toml',
  distribution: 'plain',
  version: '1.7.24',
  others: [],
  restart: 'systemctl restart containerd.service',
  replaced: false,
  effective: dump(),
  running: loaded(['layerswarm']),
  drop_in: true,
  changed_since_start: [],
  ...over,
});
const unwired = dump({ builtin_disabled: false, content_proxies: [] });

const wirings: readonly (Verdict & { facts: WiringFacts })[] = [
  { id: 'wired', facts: wiring(), level: 'ok', says: /1\.7\.24 .*takes its content from/ },
  {
    id: 'a unix:// address is the same',
    facts: wiring({
      effective: dump({ content_proxies: [{ name: 'layerswarm', address: `unix://${SOCKET}` }] }),
    }),
    level: 'ok',
    says: /takes/,
  },
  {
    id: 'namespaces are isolated there and not here',
    facts: wiring({ effective: dump({ sharing_policy: 'isolated' }) }),
    level: 'fail',
    says: /isolates namespaces/,
    mend: 'content_sharing_policy = "shared" under [plugins."io.containerd.metadata.v1.bolt"]',
  },
  {
    id: 'namespaces are isolated on both sides',
    facts: wiring({
      effective: dump({ sharing_policy: 'isolated' }),
      sharing_policy: 'isolated',
    }),
    level: 'note',
    says: /serves peers/,
  },
  {
    id: 'the daemon sees it write past us',
    facts: wiring({ unused: 'a file came that this daemon did not write' }),
    level: 'warn',
    says: /did not write/,
    mend: 'journalctl -u layerswarm',
  },
  {
    id: 'no containerd',
    facts: { kind: 'absent', unit: 'containerd.service' },
    level: 'fail',
    says: /no containerd runs/,
    mend: 'systemctl start containerd.service',
  },
  {
    id: 'no containerd of that name',
    facts: { kind: 'absent', config_file: '/x.toml' },
    level: 'fail',
    says: /\/x\.toml/,
    mend: 'ps',
  },
  {
    id: 'not wired at all',
    facts: wiring({ effective: unwired, running: loaded(['content']), drop_in: false }),
    level: 'fail',
    says: /its own store/,
    mend: 'layerswarm setup',
  },
  {
    id: 'not wired, for k3s',
    facts: wiring({ effective: unwired, running: loaded(['content']), distribution: 'k3s' }),
    level: 'fail',
    says: /own store/,
    mend: 'k3s',
  },
  {
    id: 'configured, not restarted',
    facts: wiring({ running: loaded(['content']), changed_since_start: ['/x'] }),
    level: 'fail',
    says: /counts from its next start/,
    mend: 'systemctl restart containerd.service',
  },
  {
    id: 'the drop-in is not imported',
    facts: wiring({ effective: unwired }),
    level: 'fail',
    says: /does not import it/,
    mend: 'layerswarm setup',
  },
  {
    id: 'the built-in store is not disabled',
    facts: wiring({ effective: dump({ builtin_disabled: false }) }),
    level: 'fail',
    says: /does not disable/,
    mend: 'layerswarm setup',
  },
  {
    id: 'the built-in store is required',
    facts: wiring({ effective: dump({ builtin_required: true }) }),
    level: 'fail',
    says: /will not start again/,
    mend: 'required_plugins',
  },
  {
    id: 'both stores are loaded',
    facts: wiring({ running: loaded(['content', 'layerswarm']) }),
    level: 'fail',
    says: /another content store/,
    mend: 'restart',
  },
  {
    id: 'another address is configured',
    facts: wiring({
      effective: dump({ content_proxies: [{ name: 'layerswarm', address: '/old.sock' }] }),
    }),
    level: 'fail',
    says: /\/old\.sock/,
    mend: 'layerswarm setup',
  },
  {
    id: 'another address runs',
    facts: wiring({ running: loaded(['layerswarm'], '/old.sock') }),
    level: 'fail',
    says: /running containerd looks .*\/old\.sock/,
    mend: 'restart',
  },
  {
    id: 'another proxy beside ours',
    facts: wiring({
      effective: dump({
        content_proxies: [
          { name: 'layerswarm', address: SOCKET },
          { name: 'p2p', address: '/p' },
        ],
      }),
    }),
    level: 'fail',
    says: /p2p/,
    mend: 'proxy_plugins.p2p',
  },
  {
    id: 'containerd does not answer',
    facts: wiring({ running: { failure: 'no way' } }),
    level: 'fail',
    says: /no way/,
    mend: 'journalctl -u containerd',
  },
  {
    id: 'its configuration is broken',
    facts: wiring({ effective: { failure: 'bad toml' } }),
    level: 'fail',
    says: /bad toml/,
    mend: 'config dump',
  },
  {
    id: 'wired in the main file',
    facts: wiring({ drop_in: false }),
    level: 'note',
    says: /teardown/,
  },
  {
    id: 'changed since its start',
    facts: wiring({ changed_since_start: ['/etc/containerd/config.toml'] }),
    level: 'note',
    says: /next start/,
    mend: 'restart',
  },
  {
    id: 'upgraded and not restarted',
    facts: wiring({ replaced: true }),
    level: 'note',
    says: /older than the installed/,
    mend: 'restart',
  },
  {
    id: 'several containerds',
    facts: wiring({ others: ['/b.toml'] }),
    level: 'note',
    says: /\/b\.toml/,
    mend: '--containerd-config /b.toml',
  },
];
for (const row of wirings) {
  test(`wiring: ${row.id}`, () => assert.equal(problemOf(judgeWiring(row.facts), row), undefined));
}

test('the lists of ctr are read in the shapes of 1.6 to 2.1', () => {
  const images = `REF TYPE DIGEST STATUS SIZE UNPACKED
10.77.0.1:5000/app:v1 application/vnd.oci.image.index.v1+json ${D} complete (7/7) 4.0 MiB/4.0 MiB true
x/y@${D} application/vnd.docker.distribution.manifest.v2+json ${D} error  -    false
broken line
`;
  assert.deepEqual(
    parseImages(images, 'default').map(({ name, status }) => [name, status]),
    [
      ['10.77.0.1:5000/app:v1', 'complete (7/7)'],
      [`x/y@${D}`, 'error'],
    ],
  );
  const plugins = `TYPE ID PLATFORMS STATUS
io.containerd.content.v1        layerswarm               -              ok
io.containerd.snapshotter.v1    btrfs                    linux/amd64    skip
`;
  assert.deepEqual(parsePlugins(plugins)[0], {
    type: 'io.containerd.content.v1',
    id: 'layerswarm',
    status: 'ok',
  });
  const detailed = `Type:          io.containerd.content.v1
ID:            layerswarm
Exports:
               address      /run/x.sock

Type:          io.containerd.snapshotter.v1
ID:            btrfs
Exports:
               address      /no
`;
  assert.deepEqual([...parseProxyAddresses(detailed)], [['layerswarm', '/run/x.sock']]);
});

test('versions and start times are read from what programs and the kernel write', () => {
  assert.equal(
    parseVersion('containerd github.com/containerd/containerd/v2 2.1.9+unknown \n'),
    '2.1.9',
  );
  assert.equal(
    parseVersion('containerd github.com/containerd/containerd 1.7.24~ds1 1.7.24~ds1-6\n'),
    '1.7.24',
  );
  assert.equal(parseVersion('containerd containerd.io 1.6.33 abcdef\n'), '1.6.33');
  assert.equal(parseVersion(''), undefined);
  const fields = Array.from({ length: 50 }, (_, i) => String(i)).join(' ');
  assert.equal(startOf(`42 (a) b) ${fields}`, 'cpu 1\nbtime 1000\n'), 1_000_190);
});

test('the containerd that is meant is the one named, the packaged one, or one of this mount namespace', () => {
  const one = (config_file: string, is_ours: boolean) => ({ config_file, is_ours });
  const inside = one('/etc/containerd/config.toml', false);
  const [packaged, other] = [one('/etc/containerd/config.toml', true), one('/b.toml', true)];
  assert.equal(chooseRunning([inside, other, packaged], undefined).chosen, packaged);
  assert.deepEqual(chooseRunning([inside, other, packaged], undefined).others, ['/b.toml']);
  assert.equal(chooseRunning([inside, other], undefined).chosen, other);
  assert.equal(chooseRunning([packaged, other], '/b.toml').chosen, other);
  assert.equal(chooseRunning([packaged], '/c.toml').chosen, undefined);
  assert.equal(chooseRunning([inside], undefined).chosen, undefined);
});

test('a config dump that fails or is no TOML says why', () => {
  assert.deepEqual(effectiveConfig({ code: 1, stdout: '', stderr: 'a\nboom\n' }), {
    failure: 'it ended with 1: boom',
  });
  assert.ok('failure' in effectiveConfig({ code: 0, stdout: 'x = = 1', stderr: '' }));
  const good = effectiveConfig({ code: 0, stdout: 'imports = ["/x"]\n', stderr: '' });
  assert.ok(!('failure' in good));
  assert.deepEqual(good.imports, ['/x']);
  assert.equal(good.builtin_disabled, false);
});
