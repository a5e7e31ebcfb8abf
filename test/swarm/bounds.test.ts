import assert from 'node:assert/strict';
import { test } from 'node:test';
import { multiaddr } from '@multiformats/multiaddr';
import {
  expandBootstrap,
  OwnAddresses,
  parseBootstrap,
} from '../../src/swarm/membership/addresses.ts';
import { endpointOf } from '../../src/swarm/membership/addresses.ts';
import { DialTargets } from '../../src/swarm/membership/dial-targets.ts';
import { dialFailure } from '../../src/swarm/membership/dial-failure.ts';
import { createSwarmMetrics } from '../../src/swarm/metrics.ts';
import type { PeerId } from '../../src/swarm/ground/peer-id.ts';
import { Standings } from '../../src/swarm/membership/standing.ts';
import { PerMinute } from '../../src/swarm/ground/per-minute.ts';
import { TokenBucket } from '../../src/swarm/ground/token-bucket.ts';
import { UploadSlots } from '../../src/swarm/exchange/upload-slots.ts';
import { FakeClock, settle } from '../fakes/fake-clock.ts';
import { MemoryRegister } from '../fakes/memory-register.ts';

const signal = new AbortController().signal;

function remembered() {
  const clock = new FakeClock();
  const metrics = createSwarmMetrics(new MemoryRegister(), { peers: () => 0, announced: () => 0 });
  return { clock, standings: new Standings({ clock, metrics }, { ban_ms: 1000 }) };
}

test('bans expire and double with each further one up to 64 times', async () => {
  const { clock, standings: s } = remembered();
  const peer = 'p' as PeerId;
  for (const [i, fault] of (['wrong_piece', 'wrong_list', 'protocol'] as const).entries()) {
    assert.equal(s.fault(peer, fault), true);
    assert.equal(s.banned_ms(peer), 1000 * 2 ** i);
    await clock.advance(1000 * 2 ** i);
    assert.equal(s.excluded(peer), undefined);
  }
  for (let i = 0; i < 10; i++) s.fault(peer, 'protocol');
  assert.equal(s.banned_ms(peer), 64_000);
});

test('a stalled peer is left alone for half a minute, a busy one comes last for half a second', async () => {
  const { clock, standings: s } = remembered();
  const peer = 'p' as PeerId;
  assert.equal(s.fault(peer, 'busy'), false);
  assert.equal(s.demoted(peer), 'busy');
  assert.equal(s.excluded(peer), undefined, 'busy is a preference');
  await clock.advance(500);
  assert.equal(s.demoted(peer), undefined);
  s.fault(peer, 'stalled');
  s.fault(peer, 'gone');
  await clock.advance(29_999);
  assert.equal(s.excluded(peer)?.reason, 'stalled', 'a later, shorter exclusion does not cut it');
  await clock.advance(1);
  assert.equal(s.excluded(peer), undefined);
});

test('strangers cannot wash a ban out of the memory of peers', () => {
  const { standings: s } = remembered();
  s.fault('liar' as PeerId, 'wrong_piece');
  for (let i = 0; i < 5000; i++) s.measured(`p${i}` as PeerId, 1, 1, 1);
  assert.equal(s.excluded('liar' as PeerId)?.reason, 'banned');
});

test('a token bucket lets its burst through and then its rate', async () => {
  const clock = new FakeClock();
  const bucket = new TokenBucket(clock, { per_second: 10, burst: 5 });
  assert.ok(bucket.tryTake(5));
  assert.ok(!bucket.tryTake(1));
  await clock.advance(100);
  assert.ok(bucket.tryTake(1));
  assert.ok(!bucket.tryTake(1));
  let done = false;
  const wait = bucket.take(20, signal).then(() => {
    done = true;
  });
  await clock.advance(1999);
  assert.ok(!done);
  await clock.advance(1);
  await wait;
});

test('a bucket without a rate never waits', async () => {
  await new TokenBucket(new FakeClock(), { per_second: 0, burst: 0 }).take(1e12, signal);
});

test('upload slots are handed on in order and more askers than may wait are told "busy"', async () => {
  const slots = new UploadSlots({ slots: 1, max_waiting: 2 });
  const first = await slots.acquire(signal);
  const order: number[] = [];
  const quit = new AbortController();
  const second = slots.acquire(quit.signal);
  const third = slots.acquire(signal).then((slot) => {
    order.push(3);
    return slot;
  });
  assert.equal(await slots.acquire(signal), undefined);
  quit.abort(new Error('asker went away'));
  await assert.rejects(second);
  first![Symbol.dispose]();
  const slot = await third;
  assert.deepEqual(order, [3]);
  slot![Symbol.dispose]();
  slot![Symbol.dispose]();
  await settle();
  assert.equal(slots.used, 0);
});

test('a line that strangers provoke is written once per key and minute', async () => {
  const clock = new FakeClock();
  const may = new PerMinute(clock);
  assert.ok(may.allows('a'));
  assert.ok(!may.allows('a'));
  assert.ok(may.allows('b'));
  await clock.advance(60_000);
  assert.ok(may.allows('a'));
});

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

test('the reason of a failed dial is found inside whatever libp2p wraps around it', () => {
  const refused = Object.assign(new Error('x'), { code: 'ECONNREFUSED' });
  const self = Object.assign(new Error('x'), { name: 'InvalidPeerIdError' });
  assert.equal(dialFailure(new AggregateError([new Error('y', { cause: refused })])), 'refused');
  assert.equal(dialFailure(new Error('z', { cause: self })), 'self');
  assert.equal(dialFailure(new DOMException('t', 'TimeoutError')), 'timeout');
  assert.equal(dialFailure('odd'), 'unreachable');
});
