import assert from 'node:assert/strict';
import { test } from 'node:test';
import { multiaddr } from '@multiformats/multiaddr';
import { DialTargets } from '../../../src/swarm/membership/dial-targets.ts';

test('targets follow their name, and never stand for ourselves', () => {
  const targets = new DialTargets({ self: 'me', transports: { quic: false, tcp: true } });
  const at = (ip: string) => ({ key: ip, addresses: [multiaddr(`/ip4/${ip}/tcp/1`)] });
  targets.merge('seed:1', [at('10.0.0.1'), at('10.0.0.2')], 0);
  targets.merge('seed:1', [at('10.0.0.2'), at('10.0.0.3')], 0);
  assert.deepEqual(
    targets.all().map((t) => t.key),
    ['10.0.0.2', '10.0.0.3'],
  );
  targets.learn([{ id: 'me', addresses: ['/ip4/10.0.0.9/tcp/1'] }], 0);
  assert.equal(targets.size, 2);
});
