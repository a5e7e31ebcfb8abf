// The checks of the network: the swarm port, firewalls, peers.
import assert from 'node:assert/strict';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { test } from 'node:test';
import { systemClock } from '../../src/base/clock.ts';
import {
  endpointOf,
  isVersionAnswer,
  knockQuic,
  knockTcp,
  versionProbe,
} from '../../src/host/doctor/endpoints.ts';
import { firewalldAllows, ufwAllows } from '../../src/host/doctor/firewall.ts';
import { parseSockets } from '../../src/host/doctor/listening.ts';
import { mapBounded } from '../../src/host/doctor/map-bounded.ts';
import { judgePeers, type PeersFacts } from '../../src/host/doctor/peers.ts';
import {
  countPeers,
  judgeSwarmPort,
  type PortFacts,
  type SwarmPortFacts,
} from '../../src/host/doctor/swarm-port.ts';
import { type Verdict, problemOf } from './doctor-bench.ts';

const bound = (transport: 'udp' | 'tcp', over: Partial<PortFacts> = {}): PortFacts => ({
  transport,
  bound_by: 'daemon',
  knock: { host: '10.0.0.1', result: 'answers' },
  ...over,
});
const port = (over: Partial<SwarmPortFacts> = {}): SwarmPortFacts => ({
  swarm_enabled: true,
  port: 7878,
  ports: [bound('udp'), bound('tcp')],
  peers: { connected: 2, inbound: 1 },
  firewalls: [],
  ...over,
});
const ports: readonly (Verdict & { facts: SwarmPortFacts })[] = [
  {
    id: 'reached',
    facts: port(),
    level: 'ok',
    says: /UDP and TCP port 7878.*1 of 2 peers came in/,
  },
  { id: 'no swarm', facts: port({ swarm_enabled: false }), level: 'note', says: /off/ },
  {
    id: 'nobody listens',
    facts: port({ ports: [bound('udp', { bound_by: 'nobody' }), bound('tcp')] }),
    level: 'fail',
    says: /nobody listens on UDP/,
    mend: 'restart',
  },
  {
    id: 'another program',
    facts: port({ ports: [bound('udp'), bound('tcp', { bound_by: 'other' })] }),
    level: 'fail',
    says: /another program has TCP/,
    mend: 'ss -ltnp',
  },
  {
    id: 'a port of unknown owner',
    facts: port({ ports: [bound('udp', { bound_by: 'unknown', knock: undefined })] }),
    level: 'note',
    says: /cannot be told/,
  },
  {
    id: 'it does not answer',
    facts: port({ ports: [bound('udp', { knock: { host: '10.0.0.1', result: 'timeout' } })] }),
    level: 'warn',
    says: /10\.0\.0\.1 \(timeout\)/,
    mend: 'nft',
  },
  {
    id: 'ufw in the way',
    facts: port({
      peers: { connected: 0, inbound: 0 },
      firewalls: [{ name: 'ufw', allows: false }],
    }),
    level: 'warn',
    says: /ufw/,
    mend: 'ufw allow layerswarm',
  },
  {
    id: 'firewalld in the way',
    facts: port({ peers: undefined, firewalls: [{ name: 'firewalld', allows: false }] }),
    level: 'warn',
    says: /firewalld/,
    mend: '--add-service=layerswarm',
  },
  {
    id: 'ufw that lets through',
    facts: port({ firewalls: [{ name: 'ufw', allows: true }] }),
    level: 'ok',
    says: /answers/,
  },
  {
    id: 'a firewall that peers came through',
    facts: port({ firewalls: [{ name: 'ufw', allows: false }] }),
    level: 'ok',
    says: /came in/,
  },
  {
    id: 'all peers were dialled',
    facts: port({ peers: { connected: 2, inbound: 0 } }),
    level: 'note',
    says: /dialled every one/,
    mend: 'nc -vz',
  },
  {
    id: 'alone',
    facts: port({ peers: { connected: 0, inbound: 0 } }),
    level: 'ok',
    says: /answers/,
  },
];
for (const row of ports) {
  test(`swarm port: ${row.id}`, () =>
    assert.equal(problemOf(judgeSwarmPort(row.facts), row), undefined));
}

test('a peer whose address this host never dialled has come in', () => {
  const swarm = {
    enabled: true,
    uptimeSeconds: 9,
    listenAddresses: [],
    peers: [
      { address: '/ip4/10.0.0.2/udp/7878/quic-v1/p2p/A' },
      { address: '/ip4/10.0.0.3/udp/51234/quic-v1/p2p/B' },
      { address: '/ip6/fd00::4/tcp/7878/p2p/C' },
    ],
    bootstrap: [
      { address: '10.0.0.2:7878', state: 'connected', reason: '' },
      { address: '/ip6/fd00::4/tcp/7878', state: 'connected', reason: '' },
    ],
  };
  assert.deepEqual(countPeers({ swarm }), { connected: 3, inbound: 1 });
  assert.deepEqual(countPeers({ swarm: null }), { connected: 0, inbound: 0 });
});

type Address = NonNullable<PeersFacts['daemon']>['addresses'][number];
const peers = (
  connected: number,
  addresses: readonly Address[],
  bootstrap: PeersFacts['bootstrap'] = [],
): PeersFacts => ({
  swarm_enabled: true,
  configured: bootstrap.length,
  bootstrap,
  daemon: { connected, addresses },
});
const at = (address: string, state: string, reason = ''): Address => ({ address, state, reason });

const peerRows: readonly (Verdict & { facts: PeersFacts })[] = [
  {
    id: 'connected',
    facts: peers(1, [at('10.0.0.2:7878', 'connected')]),
    level: 'ok',
    says: /1 peer$/,
  },
  { id: 'no swarm', facts: { ...peers(0, []), swarm_enabled: false }, level: 'note', says: /off/ },
  {
    id: 'no daemon',
    facts: { ...peers(0, []), daemon: undefined },
    level: 'note',
    says: /not known/,
  },
  {
    id: 'nobody to look for',
    facts: peers(0, []),
    level: 'note',
    says: /alone.*no bootstrap/,
    mend: '--join',
  },
  {
    id: 'only itself to look for',
    facts: peers(
      0,
      [at('10.0.0.1:7878', 'self')],
      [{ address: '10.0.0.1:7878', resolved: ['10.0.0.1'], tcp: 'answers' }],
    ),
    level: 'note',
    says: /itself/,
    mend: '--join',
  },
  {
    id: 'alone among others',
    facts: peers(0, [at('10.0.0.2:7878', 'failed', 'refused')]),
    level: 'warn',
    says: /alone: none of 1/,
    mend: 'systemctl status',
  },
  {
    id: 'a host with another key',
    facts: peers(1, [at('10.0.0.2:7878', 'failed', 'wrong_key')]),
    level: 'warn',
    says: /wrong_key/,
    mend: 'setup --cluster-key',
  },
  {
    id: 'a connection that was lost',
    facts: peers(1, [at('10.0.0.2:7878', 'failed', 'ok')]),
    level: 'warn',
    says: /connection lost/,
  },
  {
    id: 'a name that is none',
    facts: peers(
      1,
      [at('no.where:7878', 'failed', 'unreachable')],
      [{ address: 'no.where:7878', resolved: [], tcp: undefined }],
    ),
    level: 'warn',
    says: /does not resolve/,
    mend: 'getent hosts no.where',
  },
  {
    id: 'a name that leads to a host that refuses',
    facts: peers(
      1,
      [at('10.0.0.2:7878', 'failed', 'refused')],
      [{ address: 'b:7878', resolved: ['10.0.0.2'], tcp: 'ECONNREFUSED' }],
    ),
    level: 'warn',
    says: /b:7878 is not connected: refused; over TCP from here: ECONNREFUSED/,
    mend: 'systemctl status',
  },
  {
    id: 'a port that is filtered, without a daemon',
    facts: {
      ...peers(0, [], [{ address: 'b:7878', resolved: ['10.0.0.2'], tcp: 'timeout' }]),
      daemon: undefined,
    },
    level: 'warn',
    says: /b:7878/,
    mend: 'ufw allow',
  },
];
for (const row of peerRows) {
  test(`peers: ${row.id}`, () => {
    const finding = judgePeers(row.facts);
    assert.equal(problemOf(finding, row), undefined);
    // Each address is told of once, whoever knows of it.
    const told = [finding.summary, ...finding.details].filter((text) => text.includes(':7878'));
    assert.ok(told.length <= 1, told.join('\n'));
  });
}

test('ufw and firewalld let the port through by profile, by number or by both transports', () => {
  const ufw = (rules: string) =>
    ufwAllows(`Status: active\n\nTo  Action  From\n--  ------  ----\n${rules}\n`, 7878);
  assert.equal(ufw('layerswarm                 ALLOW       Anywhere'), true);
  assert.equal(ufw('7878                       ALLOW       Anywhere'), true);
  assert.equal(
    ufw('7878/udp                   ALLOW       Anywhere\n7878/tcp  ALLOW  10.0.0.0/8'),
    true,
  );
  assert.equal(ufw('7878/udp                   ALLOW       Anywhere'), false);
  assert.equal(ufw('7878                       DENY        Anywhere'), false);
  assert.equal(ufw('17878                      ALLOW       Anywhere'), false);
  assert.equal(
    firewalldAllows('public (active)\n  services: ssh layerswarm\n  ports: \n', 7878),
    true,
  );
  assert.equal(
    firewalldAllows('public\n  services: ssh\n  ports: 7878/udp 7878/tcp\n', 7878),
    true,
  );
  assert.equal(firewalldAllows('public\n  services: ssh\n  ports: 7878/udp\n', 7878), false);
});

test('bound sockets are read from the tables of the kernel', () => {
  const udp = `   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
 7297: 02004D0A:1EC6 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 812966 2 0 0
`;
  assert.deepEqual(parseSockets(udp, 'udp'), [{ transport: 'udp', port: 7878, inode: '812966' }]);
  const tcp = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000000000000000000000000000:1EC6 00000000000000000000000000000000:0000 0A 0:0 00:0 0 0 0 5 1 0
   1: 02004D0A:D61E 01004D0A:1388 01 00000000:00000000 02:00000A60 00000000     0        0 812801 2 0
`;
  assert.deepEqual(parseSockets(tcp, 'tcp'), [{ transport: 'tcp', port: 7878, inode: '5' }]);
});

test('endpoints are read from multiaddrs', () => {
  const udp = { host: '10.0.0.1', transport: 'udp', port: 7878 };
  assert.deepEqual(endpointOf('/ip4/10.0.0.1/udp/7878/quic-v1/p2p/X'), udp);
  assert.deepEqual(endpointOf('/ip6/fd00::1/tcp/1'), {
    host: 'fd00::1',
    transport: 'tcp',
    port: 1,
  });
  assert.equal(endpointOf('/unix/x'), undefined);
  assert.equal(endpointOf('10.0.0.1:7878'), undefined);
});

test('a TCP port that listens answers, a closed one refuses', async () => {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port: open } = server.address() as { port: number };
  const signal = new AbortController().signal;
  assert.equal(await knockTcp('127.0.0.1', open, signal), 'answers');
  server.close();
  await once(server, 'close');
  assert.equal(await knockTcp('127.0.0.1', open, signal), 'ECONNREFUSED');
});

test('a QUIC server is known by its answer to a version it cannot have, without a handshake', async () => {
  const server = createSocket('udp4');
  server.bind(0, '127.0.0.1');
  await once(server, 'listening');
  const { port: open } = server.address();
  const signal = new AbortController().signal;
  const limits = { clock: systemClock, signal };
  const answer = Buffer.from([0xc0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
  server.once('message', (packet, peer) => {
    // Large enough to be answered, and of a version that RFC 9000 keeps free for this.
    assert.ok(packet.length >= 1200);
    assert.equal(packet.readUInt32BE(1) & 0x0f0f0f0f, 0x0a0a0a0a);
    server.send(answer, peer.port, peer.address);
  });
  assert.equal(await knockQuic('127.0.0.1', open, limits), 'answers');
  server.once('message', (_, peer) => server.send('hello', peer.port, peer.address));
  assert.equal(await knockQuic('127.0.0.1', open, limits), 'no QUIC');
  const gone = new AbortController();
  server.once('message', () => gone.abort());
  assert.equal(
    await knockQuic('127.0.0.1', open, { clock: systemClock, signal: gone.signal }),
    'timeout',
  );
  server.close();
  await once(server, 'close');
  assert.equal(await knockQuic('127.0.0.1', open, limits), 'ECONNREFUSED');
  assert.equal(isVersionAnswer(versionProbe()), false);
});

test('bounded mapping keeps the order and never has more under way than it may', async () => {
  let running = 0;
  let most = 0;
  const doubled = await mapBounded([1, 2, 3, 4, 5, 6, 7], 3, async (n) => {
    most = Math.max(most, ++running);
    await Promise.resolve();
    running--;
    return n * 2;
  });
  assert.deepEqual(doubled, [2, 4, 6, 8, 10, 12, 14]);
  assert.equal(most, 3);
});
