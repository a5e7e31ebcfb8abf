import assert from 'node:assert/strict';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { test } from 'node:test';
import { systemClock } from '../../src/base/clock.ts';
import { SwarmHost } from '../swarm/swarm-host.ts';

test('a swarm whose background work failed still gives its sockets back', {
  timeout: 20_000,
}, async () => {
  let is_broken = false;
  const clock = {
    ...systemClock,
    now_ms: () => {
      if (is_broken) throw new TypeError('no time');
      return systemClock.now_ms();
    },
  };
  await using host = await SwarmHost.start({ max_backoff_ms: 20 }, { clock });
  const port = Number(host.address.split(':')[1]);
  is_broken = true;
  await assert.rejects(host.swarm.done, TypeError);
  await assert.rejects(host[Symbol.asyncDispose](), TypeError);
  const tcp = createServer().listen(port, '127.0.0.1');
  await once(tcp, 'listening');
  await once(tcp.close(), 'close');
  const udp = createSocket('udp4').bind(port, '127.0.0.1');
  await once(udp, 'listening');
  await once(udp.close(), 'close');
});
