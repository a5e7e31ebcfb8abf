// Hosts that go and come back, seen by those that stay.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type AddressInfo, createServer } from 'node:net';
import { test } from 'node:test';
import { eventually, SwarmHost } from '../swarm/swarm-host.ts';
import { CLUSTER_KEY, DaemonHome } from './daemon-process.ts';

test('a host that is switched off degrades nobody whose configuration does not name it', {
  timeout: 20_000,
}, async () => {
  await using a = await SwarmHost.start();
  await using b = await SwarmHost.start({ bootstrap: [a.address] });
  await using c = await SwarmHost.start({ bootstrap: [a.address] });
  await Promise.all([a, b, c].map((host) => host.ready(2)));
  await c[Symbol.asyncDispose]();
  for (const host of [a, b]) {
    const { state, addresses } = await host.until((s) => s.peers.length === 1);
    assert.equal(state, 'connected');
    assert.ok(
      addresses.some(({ result }) => result !== 'connected'),
      'it is still known and dialled',
    );
  }
});

for (const transport of ['quic', 'tcp'] as const) {
  test(`a host that was killed and started again is found within 5 s by one that it does not know, over ${transport}`, {
    timeout: 60_000,
  }, async (t) => {
    const port = await freePort();
    await using home = await DaemonHome.create({
      swarm: `listen_port = ${port}\ntransports = ["${transport}"]`,
    });
    await using first = home.start();
    await first.said('daemon started');
    await using host = await SwarmHost.start(
      {
        bootstrap: [`127.0.0.1:${port}`],
        quic: transport === 'quic',
        tcp: transport === 'tcp',
        min_backoff_ms: 1000,
      },
      { key: CLUSTER_KEY },
    );
    await host.ready(1);
    first.signal('SIGKILL');
    await first.ended;
    await using second = home.start();
    const joined = new Promise((resolve) => host.swarm.onPeer({ onJoined: resolve }));
    await second.said('swarm listens');
    const listens_ms = performance.now();
    await joined;
    const waited_ms = performance.now() - listens_ms;
    t.diagnostic(`found again after ${waited_ms.toFixed(0)} ms`);
    assert.ok(waited_ms <= 5000, `${waited_ms} ms`);
  });
}

test('a host that was killed and dials us anew takes the place of its dead connection at once', {
  timeout: 60_000,
}, async (t) => {
  await using host = await SwarmHost.start({}, { key: CLUSTER_KEY });
  await using home = await DaemonHome.create({ swarm: `bootstrap = ["${host.address}"]` });
  await using first = home.start();
  await host.ready(1);
  first.signal('SIGKILL');
  await first.ended;
  await using second = home.start();
  const joined = new Promise((resolve) => host.swarm.onPeer({ onJoined: resolve }));
  await second.said('swarm listens');
  const listens_ms = performance.now();
  await joined;
  const waited_ms = performance.now() - listens_ms;
  t.diagnostic(`found again after ${waited_ms.toFixed(0)} ms`);
  assert.ok(waited_ms <= 1500, `${waited_ms} ms`);
});

test('at an address that another peer has by now the one that was meant is not found, and the other is not taken for it', {
  timeout: 20_000,
}, async (t) => {
  await using there = await SwarmHost.start();
  const [ip, port] = there.address.split(':');
  const meant = '12D3KooWGC6TvWhfapngX6wvJHMYvKpDMXPb3ZnCZ6dMoaMtimQ5';
  for (const way of [`tcp/${port}`, `udp/${port}/quic-v1`]) {
    await using host = await SwarmHost.start({ bootstrap: [`/ip4/${ip}/${way}/p2p/${meant}`] });
    await eventually(t, () => host.swarm.status().addresses[0]?.result === 'wrong_peer');
    assert.deepEqual(host.swarm.status().peers, []);
  }
  assert.equal(there.register.value('admissions_total', { result: 'ok' }), 0);
});

/** A port that nobody has now, for both lives of a daemon. */
async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  await once(server.close(), 'close');
  return port;
}
