import assert from 'node:assert/strict';
import { test } from 'node:test';
import { multiaddr } from '@multiformats/multiaddr';
import {
  endpointOf,
  expandBootstrap,
  OwnAddresses,
  parseBootstrap,
} from '../../../src/swarm/membership/addresses.ts';

test('own addresses are all interfaces with the listening ports, and those learnt', () => {
  const own = new OwnAddresses({
    listening: () => [
      multiaddr('/ip4/0.0.0.0/tcp/7000'),
      multiaddr('/ip4/127.0.0.1/udp/7001/quic-v1'),
    ],
    interfaces: () => ({
      eth0: [{ address: '10.0.0.5' }, { address: 'fd00::5' }, { address: '127.0.0.1' }] as never,
    }),
  });
  own.learn(multiaddr('/ip4/192.0.2.9/tcp/80'));
  const is = (text: string) => own.current().has(endpointOf(multiaddr(text)));
  assert.ok(is('/ip4/10.0.0.5/tcp/7000'));
  assert.ok(is('/ip6/fd00::5/tcp/7000'));
  assert.ok(is('/ip4/127.0.0.1/udp/7001/quic-v1'));
  assert.ok(is('/ip4/192.0.2.9/tcp/80'));
  assert.ok(!is('/ip4/10.0.0.5/tcp/7001'));
  assert.ok(!is('/ip4/10.0.0.6/tcp/7000'));
});

test('a bootstrap name stands for each of its addresses, QUIC before TCP', async () => {
  const found = await expandBootstrap(parseBootstrap('seed:7000'), { quic: true, tcp: true }, () =>
    Promise.resolve(['10.0.0.1', 'fd00::1', '10.0.0.1']),
  );
  assert.deepEqual(
    found.map((t) => [t.key, ...t.addresses.map((a) => a.toString())]),
    [
      ['10.0.0.1:7000', '/ip4/10.0.0.1/udp/7000/quic-v1', '/ip4/10.0.0.1/tcp/7000'],
      ['[fd00::1]:7000', '/ip6/fd00::1/udp/7000/quic-v1', '/ip6/fd00::1/tcp/7000'],
    ],
  );
});

for (const text of ['', 'host', 'host:0', 'host:70000', 'a b:1', '/nonsense/1', 'http://x:1']) {
  test(`the bootstrap address "${text}" is refused`, () => {
    assert.throws(() => parseBootstrap(text), { code: 'config_invalid' });
  });
}
