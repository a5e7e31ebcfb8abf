import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { parse } from 'smol-toml';
import { renderReference } from '../../src/config/reference.ts';
import { parseConfig } from '../../src/config/load.ts';
import { defaultQuicConfig } from '../../src/swarm/transport/quic/config.ts';
import { needTools, removeTree, ROOT, scratch } from './package-bench.ts';

/** Tenths, as systemd-analyze counts. */
const EXPOSURE_MAX = 22;
const SERVICE = join(ROOT, 'systemd/layerswarm.service');
const SOCKET = join(ROOT, 'systemd/layerswarm.socket');

let directory = '';

before(() => {
  needTools();
  directory = scratch();
});
after(() => removeTree(directory));

function analyze(...args: string[]): { status: number | null; said: string } {
  const { status, stdout, stderr } = spawnSync('systemd-analyze', args, {
    encoding: 'utf8',
    timeout: 60_000,
    // Manual pages that are not installed here are not the question.
    env: { ...process.env, SYSTEMD_LOG_LEVEL: 'info' },
  });
  return { status, said: `${stdout}${stderr}` };
}

/** Values of a key of a unit, in order. */
function values(file: string, key: string): string[] {
  const lines = readFileSync(file, 'utf8').split('\n');
  return lines.filter((l) => l.startsWith(`${key}=`)).map((l) => l.slice(key.length + 1));
}

test('systemd finds nothing wrong with the units', () => {
  // The programs of the units need not be installed on the machine that checks them.
  const unit = (file: string, name: string): string => {
    const text = readFileSync(file, 'utf8')
      .replace(/^ExecStart=\S+/m, 'ExecStart=/bin/true')
      .replace(/^Documentation=.*\n/m, '');
    mkdirSync(join(directory, 'units'), { recursive: true });
    writeFileSync(join(directory, 'units', name), text);
    return join(directory, 'units', name);
  };
  const files = [unit(SERVICE, 'layerswarm.service'), unit(SOCKET, 'layerswarm.socket')];
  const { status, said } = analyze('verify', '--recursive-errors=no', ...files);
  assert.equal(said, '');
  assert.equal(status, 0);
});

test('the exposure of the service stays at 2.2 or below', () => {
  const { status, said } = analyze(
    'security',
    '--offline=true',
    `--threshold=${EXPOSURE_MAX}`,
    SERVICE,
  );
  assert.equal(status, 0, said.split('\n').slice(-3).join('\n'));
});

test('a stop has time for the whole drain and close', () => {
  const { content } = parseConfig('', 'defaults', {});
  const CLOSE_MS = 10_000;
  const [stop_s] = values(SERVICE, 'TimeoutStopSec').map(Number);
  assert.ok(stop_s! * 1000 > content.drain_ms + CLOSE_MS, `${stop_s} s`);
});

test('the service is never given up, and comes back in less than containerd gives a connection', () => {
  assert.deepEqual(values(SERVICE, 'StartLimitIntervalSec'), ['0']);
  assert.deepEqual(values(SERVICE, 'Restart'), ['always']);
  const [pause] = values(SERVICE, 'RestartSec');
  assert.match(pause ?? '', /^[1-5]\d\dms$/);
});

test('both units come before containerd, and containerd is never tied to them', () => {
  for (const file of [SERVICE, SOCKET]) {
    assert.deepEqual(values(file, 'Before'), ['containerd.service']);
    for (const key of ['RequiredBy', 'BindsTo', 'PartOf', 'Conflicts']) {
      assert.deepEqual(values(file, key), [], key);
    }
  }
});

test('the units use the paths that the configuration has as defaults', () => {
  const { content, store } = parseConfig('', 'defaults', {});
  assert.deepEqual(values(SOCKET, 'ListenStream'), [content.socket_path]);
  assert.deepEqual(values(SERVICE, 'ReadWritePaths'), [`-${store.content_directory}`]);
  assert.equal(`/var/lib/${values(SERVICE, 'StateDirectory')[0] ?? ''}`, store.state_directory);
});

test('firewall profiles open the port that the configuration has as default, for UDP and TCP', () => {
  const { listen_port } = parseConfig('', 'defaults', {}).swarm;
  const read = (name: string) => readFileSync(join(ROOT, 'packaging/host', name), 'utf8');
  assert.match(
    read('ufw-profile'),
    new RegExp(`^ports=${listen_port}/udp\\|${listen_port}/tcp$`, 'm'),
  );
  for (const protocol of ['udp', 'tcp']) {
    assert.ok(
      read('firewalld-service.xml').includes(
        `<port protocol="${protocol}" port="${listen_port}"/>`,
      ),
    );
  }
});

test('the kernel lets sockets have the buffers that QUIC asks for', () => {
  const text = readFileSync(join(ROOT, 'packaging/host/50-layerswarm.conf'), 'utf8');
  for (const key of ['net.core.rmem_max', 'net.core.wmem_max']) {
    const value = Number(new RegExp(`^${key} = (\\d+)$`, 'm').exec(text)?.[1]);
    assert.ok(value >= defaultQuicConfig.socket_buffer_bytes, key);
  }
});

test('the short configuration is one, and says the same as the long one', () => {
  const read = (name: string) => readFileSync(join(ROOT, 'packaging/host', name), 'utf8');
  const defaults = parseConfig('', 'defaults', {});
  assert.deepEqual(Object.keys(parse(read('config.toml'))), []);
  assert.deepEqual(parseConfig(renderReference(), 'long', {}), defaults);
  const tcp = parseConfig(read('config.toml') + read('config-tcp.toml'), 'tcp', {});
  assert.deepEqual(tcp, { ...defaults, swarm: { ...defaults.swarm, transports: ['tcp'] } });
  // The example in it works when its comment signs are taken away.
  const example = read('config.toml').replaceAll(/^# (?=\[|bootstrap)/gm, '');
  assert.equal(parseConfig(example, 'example', {}).swarm.bootstrap.length, 2);
});
