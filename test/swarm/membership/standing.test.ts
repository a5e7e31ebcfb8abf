import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createSwarmMetrics } from '../../../src/swarm/metrics.ts';
import type { PeerId } from '../../../src/swarm/ground/peer-id.ts';
import { Standings } from '../../../src/swarm/membership/standing.ts';
import { FakeClock } from '../../fakes/fake-clock.ts';
import { MemoryRegister } from '../../fakes/memory-register.ts';

function remembered() {
  const clock = new FakeClock();
  const metrics = createSwarmMetrics(new MemoryRegister(), { peers: () => 0, announced: () => 0 });
  return { clock, standings: new Standings({ clock, metrics }, { ban_ms: 1000 }) };
}

function one() {
  const { clock, standings } = remembered();
  return { clock, standings, peer: 'p' as PeerId, s: standings.of('p' as PeerId) };
}

test('bans expire and double with each further one up to 64 times', async () => {
  const { clock, standings: s } = remembered();
  const peer = 'p' as PeerId;
  for (const [i, fault] of (['wrong_piece', 'wrong_list', 'protocol'] as const).entries()) {
    assert.equal(s.fault(peer, fault), true);
    assert.equal(s.banned_ms(peer), 1000 * 2 ** i);
    assert.deepEqual(
      s.banned().map((ban) => [ban.id, ban.reason]),
      [[peer, fault]],
    );
    await clock.advance(1000 * 2 ** i);
    assert.equal(s.of(peer).excluded(), undefined);
  }
  for (let i = 0; i < 10; i++) s.fault(peer, 'protocol');
  assert.equal(s.banned_ms(peer), 64_000);
});

test('a busy peer is asked again at the time it names, and soon when it names none', async () => {
  const { clock, s } = one();
  assert.equal(s.fault('busy', { retry_after_ms: 700 }), false);
  s.fault('busy'); // an answer to another request, which says less
  assert.deepEqual(s.excluded(), {
    reason: 'busy',
    until_ms: clock.now_ms() + 700,
    promised: true,
  });
  assert.equal(s.demoted(), undefined, 'it is no worse for it');
  await clock.advance(700);
  assert.equal(s.excluded(), undefined);
  s.delivered();
  const pauses: number[] = [];
  for (let i = 0; i < 5; i++) {
    s.fault('busy');
    pauses.push(s.excluded()!.until_ms - clock.now_ms());
    await clock.advance(pauses.at(-1)!);
  }
  assert.deepEqual(pauses, [100, 200, 400, 800, 1000]);
  s.fault('busy', { retry_after_ms: 1e9 });
  assert.equal(s.excluded()!.until_ms - clock.now_ms(), 10_000, 'nobody is believed for ever');
});

test('a peer that is too busy for something large can be asked for something small, not the other way round', async () => {
  const { clock, s } = one();
  s.fault('busy', { retry_after_ms: 700, size: 'large' });
  assert.deepEqual([s.excluded('large')?.reason, s.excluded('small')], ['busy', undefined]);
  await clock.advance(700);
  s.fault('busy', { retry_after_ms: 0, size: 'small' });
  assert.deepEqual([s.excluded('large')?.reason, s.excluded('small')?.reason], ['busy', 'busy']);
  await clock.advance(20);
  assert.deepEqual([s.excluded('large'), s.excluded('small')], [undefined, undefined]);
});

test('a silent peer is left alone for a second, longer each time in a row, and for no pull longer than eight', async () => {
  const { clock, s } = one();
  const pauses: number[] = [];
  for (let i = 0; i < 5; i++) {
    s.fault('stalled');
    s.fault('gone'); // of the same moment: one failure
    assert.equal(s.excluded()?.reason, 'stalled');
    pauses.push(s.excluded()!.until_ms - clock.now_ms());
    await clock.advance(pauses.at(-1)!);
    assert.equal(s.excluded(), undefined);
    assert.equal(s.demoted(), 'stalled', 'but it comes last');
  }
  assert.deepEqual(pauses, [1000, 2000, 4000, 8000, 8000]);
  s.delivered();
  assert.equal(s.demoted(), undefined);
  s.fault('gone');
  assert.equal(s.excluded()!.until_ms - clock.now_ms(), 1000);
});

test('any byte of a silent peer brings it back', () => {
  const { s } = one();
  s.fault('stalled');
  s.heard(1);
  assert.equal(s.excluded(), undefined);
  assert.equal(s.demoted(), 'stalled');
});

test('a peer whose requests only stalled is used when it is the last; one that wasted a whole pull is left alone', async () => {
  const { clock, s } = one();
  s.stalling();
  assert.deepEqual([s.excluded(), s.demoted()], [undefined, 'stalled']);
  await clock.advance(30_000);
  assert.equal(s.demoted(), undefined);
  s.fault('too_slow');
  s.heard(1);
  assert.equal(s.excluded()?.reason, 'too_slow');
  await clock.advance(30_000);
  assert.equal(s.excluded(), undefined);
});

test('the rate is that of all requests together, pauses apart, and follows the peer within a second or two', async () => {
  const { clock, s } = one();
  assert.equal(s.rate, undefined);
  const transfer = async (ms: number, bytes_per_ms: number): Promise<void> => {
    for (let left = ms; left > 0; left -= 50) {
      await clock.advance(50);
      s.heard(50 * bytes_per_ms);
    }
  };
  const [first, second] = [s.begin(), s.begin()];
  await transfer(1000, 8000);
  first();
  assert.equal(s.in_flight, 1);
  assert.equal(Math.round(s.rate!), 8000);
  second();
  second();
  assert.equal(s.in_flight, 0);
  await clock.advance(60_000);
  assert.equal(Math.round(s.rate!), 8000);
  const end = s.begin();
  await transfer(3000, 100);
  assert.equal(s.rate! < 300, true, `${s.rate!}`);
  await clock.advance(3000);
  assert.equal(s.rate! < 50, true, 'silence counts');
  end();
});

test('a first piece tells a rate before it is whole', async () => {
  const { clock, s } = one();
  s.begin();
  await clock.advance(100);
  s.heard(10_000);
  assert.equal(s.rate, undefined, 'too little to tell');
  await clock.advance(150);
  assert.equal(s.rate, 40);
});

test('strangers cannot wash a ban out of the memory of peers, nor one that is being asked', () => {
  const { standings: s } = remembered();
  s.fault('liar' as PeerId, 'wrong_piece');
  const asked = s.of('asked' as PeerId);
  asked.begin();
  for (let i = 0; i < 5000; i++) s.of(`p${i}` as PeerId).answered(1);
  assert.equal(s.of('liar' as PeerId).excluded()?.reason, 'banned');
  assert.equal(s.of('asked' as PeerId), asked);
});
