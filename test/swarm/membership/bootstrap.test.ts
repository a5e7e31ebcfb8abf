import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Multiaddr } from '@multiformats/multiaddr';
import type { PeerId } from '../../../src/swarm/ground/peer-id.ts';
import { OwnAddresses } from '../../../src/swarm/membership/addresses.ts';
import { Bootstrap } from '../../../src/swarm/membership/bootstrap.ts';
import type { Mesh } from '../../../src/swarm/membership/mesh.ts';
import { type ConnectResult, createSwarmMetrics } from '../../../src/swarm/metrics.ts';
import { FakeClock, settle } from '../../fakes/fake-clock.ts';
import { MemoryLogger } from '../../fakes/memory-logger.ts';
import { MemoryRegister } from '../../fakes/memory-register.ts';
import { loopbackConfig } from '../swarm-host.ts';

/** What stands at an address: a result after a time, or nothing that ever answers. */
type Answer = { readonly after_ms: number; readonly result: ConnectResult } | 'silence';

/** A bootstrap over a mesh whose addresses answer as the test says; nothing answers at all others. */
class Rig implements AsyncDisposable {
  readonly clock = new FakeClock();
  readonly answers = new Map<string, Answer>();
  readonly connected = new Set<string>();
  /** Every address dialled, with the time since the start. */
  readonly dials: { readonly address: string; readonly at_ms: number }[] = [];
  open = 0;
  most_open = 0;
  readonly banned = new Set<string>();
  readonly bootstrap: Bootstrap;
  readonly #stop = new AbortController();
  readonly #running: Promise<void>;
  readonly #begun_ms = this.clock.now_ms();

  constructor(addresses: readonly string[] = []) {
    const config = { ...loopbackConfig(), bootstrap: addresses };
    const none = { peers: () => 0, announced: () => 0 };
    this.bootstrap = new Bootstrap(
      {
        mesh: this.#mesh(),
        own: new OwnAddresses({ listening: () => [], interfaces: () => ({}) }),
        self: 'me',
        resolve: () => Promise.reject(new Error('no names here')),
        random: () => 1,
        clock: this.clock,
        logger: new MemoryLogger(),
        metrics: createSwarmMetrics(new MemoryRegister(), none),
      },
      config,
    );
    this.#running = this.bootstrap.run(this.#stop.signal);
  }

  get now_ms(): number {
    return this.clock.now_ms() - this.#begun_ms;
  }

  at(ip: string): number[] {
    return this.dials.filter(({ address }) => address.includes(`/${ip}/`)).map((d) => d.at_ms);
  }

  /** Advances in small steps until the peer is connected; the virtual time that took. */
  async connecting(peer: string, limit_ms = 60_000): Promise<number> {
    const from_ms = this.now_ms;
    while (!this.connected.has(peer) && this.now_ms - from_ms < limit_ms)
      await this.clock.advance(10);
    return this.now_ms - from_ms;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.clock.advance(60_000);
    await this.#running;
  }

  #mesh(): Mesh {
    const { connected, banned } = this;
    const mesh = {
      get size() {
        return connected.size;
      },
      has: (peer: PeerId) => connected.has(peer),
      isBanned: (peer: PeerId) => banned.has(peer),
      connect: (address: Multiaddr, signal: AbortSignal) => this.#connect(address, signal),
    };
    return mesh as unknown as Mesh;
  }

  async #connect(address: Multiaddr, signal: AbortSignal) {
    const text = address.toString().replace(/\/p2p\/.*/, '');
    this.dials.push({ address: text, at_ms: this.now_ms });
    this.open += 1;
    this.most_open = Math.max(this.most_open, this.open);
    try {
      const answer = this.answers.get(text) ?? 'silence';
      await this.clock.sleep(answer === 'silence' ? 1e9 : answer.after_ms, { signal });
      const { result } = answer as Exclude<Answer, 'silence'>;
      const peer = `peer of ${address.getComponents()[0]!.value!}` as PeerId;
      if (result === 'ok') this.connected.add(peer);
      return { result, peer };
    } finally {
      this.open -= 1;
    }
  }
}

const quic = (ip: string): string => `/ip4/${ip}/udp/7878/quic-v1`;
const tcp = (ip: string): string => `/ip4/${ip}/tcp/7878`;
const soon = { after_ms: 20, result: 'ok' } as const;

test('a host with 16 silent addresses before the good one is connected within 2 s', async () => {
  await using rig = new Rig();
  const ips = Array.from({ length: 17 }, (_, i) => `10.0.0.${i + 1}`);
  rig.answers.set(tcp('10.0.0.17'), soon);
  rig.bootstrap.learn([{ id: 'far', addresses: ips.map(tcp) }]);
  assert.ok((await rig.connecting('peer of 10.0.0.17')) <= 2000);
});

test('16 silent hosts before the good one do not hold it up', async () => {
  const ips = Array.from({ length: 17 }, (_, i) => `10.0.0.${i + 1}`);
  await using rig = new Rig(ips.map((ip) => `${ip}:7878`));
  rig.answers.set(tcp('10.0.0.17'), soon);
  assert.ok((await rig.connecting('peer of 10.0.0.17')) <= 2000);
});

test('where UDP is blocked TCP has its turn a quarter of a second later, or at once when QUIC fails at once', async () => {
  await using silent = new Rig(['10.0.0.1:7878']);
  silent.answers.set(tcp('10.0.0.1'), soon);
  const waited_ms = await silent.connecting('peer of 10.0.0.1');
  assert.ok(waited_ms >= 250 && waited_ms <= 300, String(waited_ms));
  await using refused = new Rig(['10.0.0.1:7878']);
  refused.answers.set(quic('10.0.0.1'), { after_ms: 5, result: 'refused' });
  refused.answers.set(tcp('10.0.0.1'), soon);
  assert.ok((await refused.connecting('peer of 10.0.0.1')) <= 50);
});

test('QUIC that answers in time is the only one that is dialled', async () => {
  await using rig = new Rig(['10.0.0.1:7878']);
  rig.answers.set(quic('10.0.0.1'), { after_ms: 200, result: 'ok' });
  rig.answers.set(tcp('10.0.0.1'), soon);
  await rig.connecting('peer of 10.0.0.1');
  await rig.clock.advance(1000);
  assert.deepEqual(
    rig.dials.map((d) => d.address),
    [quic('10.0.0.1')],
  );
});

test('when one address is admitted the others are cancelled', async () => {
  await using rig = new Rig(['10.0.0.1:7878']);
  rig.answers.set(quic('10.0.0.1'), { after_ms: 2000, result: 'ok' });
  rig.answers.set(tcp('10.0.0.1'), { after_ms: 100, result: 'ok' });
  const waited_ms = await rig.connecting('peer of 10.0.0.1');
  await settle();
  assert.deepEqual([waited_ms <= 360, rig.open, rig.dials.length], [true, 0, 2]);
});

test('a host that refuses us by name is not asked at its other addresses', async () => {
  await using rig = new Rig(['10.0.0.1:7878']);
  rig.answers.set(quic('10.0.0.1'), { after_ms: 10, result: 'wrong_key' });
  await rig.clock.advance(900);
  assert.deepEqual(
    rig.dials.map((d) => d.address),
    [quic('10.0.0.1')],
  );
  assert.equal(rig.bootstrap.status()[0]?.result, 'wrong_key');
});

test('a silent host has its slot for one deadline, however many addresses it has', async () => {
  await using rig = new Rig();
  const ips = Array.from({ length: 16 }, (_, i) => `10.0.0.${i + 1}`);
  rig.bootstrap.learn([{ id: 'far', addresses: ips.map(tcp) }]);
  await rig.clock.advance(5010);
  assert.equal(rig.open, 0);
  assert.deepEqual(
    rig.bootstrap.status().map((s) => [s.result, s.failures]),
    [['timeout', 1]],
  );
});

test('three hundred silent hosts keep a bounded number of dials open, and one that is new does not wait behind them', async () => {
  const dead = Array.from({ length: 300 }, (_, i) => `10.1.${i >> 8}.${i & 255}`);
  await using rig = new Rig(dead.map((ip) => `${ip}:7878`));
  await rig.clock.advance(100_000);
  // Two addresses each; every host has failed before and many are due again.
  assert.ok(rig.most_open <= 64, String(rig.most_open));
  rig.answers.set(tcp('10.0.0.1'), soon);
  rig.bootstrap.learn([{ id: 'peer of 10.0.0.1', addresses: [tcp('10.0.0.1')] }]);
  assert.ok((await rig.connecting('peer of 10.0.0.1')) <= 5100);
});

test('a peer whose connection is lost is dialled within 0.2 s, QUIC first again, then ever more rarely', async () => {
  await using rig = new Rig(['10.0.0.1:7878']);
  rig.answers.set(quic('10.0.0.1'), soon);
  await rig.connecting('peer of 10.0.0.1');
  await rig.clock.advance(60_000);
  // Its process is gone: every port refuses.
  rig.answers.set(quic('10.0.0.1'), { after_ms: 0, result: 'refused' });
  rig.answers.set(tcp('10.0.0.1'), { after_ms: 0, result: 'refused' });
  rig.dials.length = 0;
  rig.connected.clear();
  const from_ms = rig.now_ms;
  rig.bootstrap.lost('peer of 10.0.0.1' as PeerId, 'silent');
  await rig.clock.advance(100_000);
  const rounds = [...new Set(rig.dials.map((d) => d.at_ms - from_ms))];
  const [first = 0, ...later] = rounds;
  assert.ok(first <= 200, String(first));
  assert.equal(rig.dials[0]?.address, quic('10.0.0.1'));
  const gaps = [first, ...later].map((at, i, all) => Math.round((all[i + 1] ?? at) - at));
  assert.deepEqual(gaps.slice(0, 7), [1000, 2000, 4000, 8000, 16_000, 20_000, 20_000]);
});

test('a stall that is held against a peer does not keep us from dialling it again, a ban does', async () => {
  await using rig = new Rig();
  rig.banned.add('two');
  rig.bootstrap.learn([
    { id: 'one', addresses: [tcp('10.0.0.1')] },
    { id: 'two', addresses: [tcp('10.0.0.2')] },
  ]);
  await rig.clock.advance(1000);
  assert.deepEqual([rig.at('10.0.0.1').length, rig.at('10.0.0.2').length], [1, 0]);
});

test('a peer known by two names is dialled once at a time', async () => {
  await using rig = new Rig(['10.0.0.1:7878']);
  rig.answers.set(quic('10.0.0.1'), soon);
  const peer = 'peer of 10.0.0.1' as PeerId;
  await rig.connecting(peer);
  rig.bootstrap.learn([{ id: peer, addresses: [tcp('10.0.0.1'), quic('10.0.0.1')] }]);
  await rig.clock.advance(1000);
  rig.dials.length = 0;
  rig.connected.clear();
  rig.answers.set(quic('10.0.0.1'), { after_ms: 200, result: 'ok' });
  rig.bootstrap.lost(peer, 'gone');
  await rig.connecting(peer);
  await rig.clock.advance(1000);
  assert.equal(rig.dials.filter((d) => d.address === quic('10.0.0.1')).length, 1);
});

test('what is configured counts as whole when each entry leads to a peer or to ourselves; learnt hosts do not count', async () => {
  await using rig = new Rig(['10.0.0.1:7878', '10.0.0.2:7878']);
  rig.answers.set(quic('10.0.0.1'), soon);
  rig.answers.set(quic('10.0.0.2'), { after_ms: 5, result: 'refused' });
  rig.answers.set(tcp('10.0.0.2'), { after_ms: 5, result: 'refused' });
  rig.bootstrap.learn([{ id: 'off', addresses: [tcp('10.0.0.9')] }]);
  await rig.clock.advance(10_000);
  assert.equal(rig.bootstrap.isWhole(), false);
  rig.answers.set(quic('10.0.0.2'), soon);
  await rig.connecting('peer of 10.0.0.2');
  assert.deepEqual([rig.bootstrap.isWhole(), rig.bootstrap.status().length], [true, 3]);
});
