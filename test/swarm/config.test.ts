import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseConfig } from '../../src/config/load.ts';
import { SECTIONS } from '../../src/config/schema.ts';
import { swarmConfig } from '../../src/daemon-swarm-config.ts';
import { fixedSwarmConfig } from '../../src/swarm/config.ts';
import { loopbackConfig } from './swarm-host.ts';

const about = { host_name: 'h', software_version: '1' };
const defaults = swarmConfig(parseConfig('', 'defaults', {}), about);

/** A value other than the default for each key of the section; `enabled` decides before there is a swarm. */
const others: Readonly<Record<string, string>> = {
  listen_port: '1',
  listen_addresses: '["127.0.0.1"]',
  transports: '["tcp"]',
  bootstrap: '["host:1"]',
  cluster_key_file: '"/key"',
  zone: '"z"',
  max_peers: '1',
  max_upload_bytes_per_second: '1048576',
  upload_slots: '1',
  dial_timeout_ms: '100',
  silent_peer_ms: '1000',
  ban_ms: '1000',
};

test('every key of [swarm] reaches the swarm', () => {
  const keys = Object.keys(SECTIONS.swarm.schema.shape).filter((key) => key !== 'enabled');
  assert.deepEqual(Object.keys(others).toSorted(), keys.toSorted());
  for (const [key, value] of Object.entries(others)) {
    const changed = swarmConfig(parseConfig(`[swarm]\n${key} = ${value}\n`, 'test', {}), about);
    assert.notDeepEqual(changed, defaults, key);
  }
});

test('a setting has one default: in the schema or fixed, and the tests run with it', () => {
  const { swarm } = parseConfig('', 'defaults', {});
  assert.deepEqual(
    [defaults.port, defaults.upload_slots, defaults.ban_ms, defaults.peer_timeout_ms],
    [swarm.listen_port, swarm.upload_slots, swarm.ban_ms, swarm.silent_peer_ms],
  );
  const hidden = Object.entries(fixedSwarmConfig).filter(
    ([key, value]) => defaults[key as keyof typeof defaults] !== value,
  );
  assert.deepEqual(hidden, []);
  const { listen, port, host_name, software_version } = loopbackConfig();
  assert.deepEqual(loopbackConfig(), { ...defaults, listen, port, host_name, software_version });
});
