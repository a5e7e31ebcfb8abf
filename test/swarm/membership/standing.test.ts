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
