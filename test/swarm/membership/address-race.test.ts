import assert from 'node:assert/strict';
import { test } from 'node:test';
import { multiaddr } from '@multiformats/multiaddr';
import { raceAddresses, raceOrder } from '../../../src/swarm/membership/address-race.ts';
import type { ConnectResult } from '../../../src/swarm/metrics.ts';
import { FakeClock } from '../../fakes/fake-clock.ts';

const { signal } = new AbortController();
const tcp = (n: number) => multiaddr(`/ip4/10.0.0.${n}/tcp/1`);

test('transports and families take turns, each in the order given', () => {
  const order = raceOrder(
    [
      '/ip4/10.0.0.1/tcp/1',
      '/ip4/10.0.0.2/tcp/1',
      '/ip4/10.0.0.1/udp/1/quic-v1',
      '/ip4/10.0.0.2/udp/1/quic-v1',
      '/ip6/fd00::1/udp/1/quic-v1',
      '/ip6/fd00::1/tcp/1',
    ].map((text) => multiaddr(text)),
  );
  assert.deepEqual(
    order.map((address) => address.toString()),
    [
      '/ip4/10.0.0.1/udp/1/quic-v1',
      '/ip4/10.0.0.1/tcp/1',
      '/ip6/fd00::1/udp/1/quic-v1',
      '/ip6/fd00::1/tcp/1',
      '/ip4/10.0.0.2/udp/1/quic-v1',
      '/ip4/10.0.0.2/tcp/1',
    ],
  );
});

const told: readonly (readonly [readonly ConnectResult[], ConnectResult])[] = [
  [['timeout', 'refused'], 'refused'],
  [['refused', 'timeout'], 'refused'],
  [['unreachable', 'timeout'], 'timeout'],
  [['self', 'timeout'], 'timeout'],
  [['self', 'self'], 'self'],
  [['refused', 'wrong_peer'], 'wrong_peer'],
];
for (const [results, expected] of told) {
  test(`of the failures ${results.join(' and ')} the host's is ${expected}`, async () => {
    const left = [...results];
    const options = { clock: new FakeClock(), deadline_ms: 5000, signal };
    const result = await raceAddresses([tcp(1), tcp(2)], async () => left.shift()!, options);
    assert.equal(result, expected);
  });
}

test('an attempt that does not heed its signal does not hold the race beyond its deadline', async () => {
  const clock = new FakeClock();
  const options = { clock, deadline_ms: 1000, signal };
  let result: ConnectResult | undefined;
  const never = new Promise<ConnectResult>(() => undefined);
  void raceAddresses([tcp(1)], () => never, options).then((r) => (result = r));
  await clock.advance(990);
  assert.equal(result, undefined);
  await clock.advance(20);
  assert.equal(result, 'timeout');
});
