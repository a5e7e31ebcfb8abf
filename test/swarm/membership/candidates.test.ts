import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DaemonError, hasCode } from '../../../src/base/errors.ts';
import { digestOf } from '../../../src/oci/digest.ts';
import type { SourceFault } from '../../../src/piece/exclusion.ts';
import type { PeerId } from '../../../src/swarm/ground/peer-id.ts';
import { OwnInventory } from '../../../src/swarm/inventory/own-inventory.ts';
import { PrefixSet, prefixOf } from '../../../src/swarm/inventory/prefix-set.ts';
import { MeshDirectory } from '../../../src/swarm/membership/mesh-directory.ts';
import type { PeerSession } from '../../../src/swarm/membership/peer-session.ts';
import { Standings } from '../../../src/swarm/membership/standing.ts';
import { createSwarmMetrics } from '../../../src/swarm/metrics.ts';
import { FakeClock } from '../../fakes/fake-clock.ts';
import { MemoryRegister } from '../../fakes/memory-register.ts';

const DIGEST = digestOf(Buffer.from('a layer'));
const SIZE = 100;

/** The directory over sessions that a test lays down; every one of them holds the blob. */
function directory() {
  const clock = new FakeClock();
  const metrics = createSwarmMetrics(new MemoryRegister(), { peers: () => 0, announced: () => 0 });
  const standings = new Standings({ clock, metrics }, { ban_ms: 60_000 });
  const sessions = new Map<PeerId, PeerSession>();
  const mesh = {
    sessions: () => sessions.values(),
    session: (peer: PeerId) => sessions.get(peer),
    has: (peer: PeerId) => sessions.has(peer),
    blame: (...args: Parameters<Standings['fault']>) => void standings.fault(...args),
  };
  const modules = { mesh, own: new OwnInventory(), standings, metrics };
  const found = new MeshDirectory(modules, { zone: 'here' });
  /** Connects the peer, anew when it was connected before. Returns how its requests on this connection fail. */
  const connect = (name: string, zone = 'there', load = 0) => {
    const id = name as PeerId;
    const prefixes = new PrefixSet({ max: 10 });
    prefixes.add(prefixOf(DIGEST));
    const lost = Promise.withResolvers<never>();
    const pieces = {
      piece: () => lost.promise,
      list: () => lost.promise,
      release: () => undefined,
    };
    const hello = { zone };
    const session = { id, prefixes, pieces, hello, transport: 'quic', state: { load } };
    sessions.set(id, session as unknown as PeerSession);
    return lost;
  };
  const names = (): string[] => [...found.find(DIGEST)];
  return { clock, standings, directory: found, connect, names };
}

test('near candidates come first, then the faster, those that are busy after them, those that stalled at the end', () => {
  const { standings, connect, names } = directory();
  for (const name of ['stalled', 'busy', 'loaded', 'far']) connect(name, 'there', 0);
  connect('loaded', 'there', 0.9);
  connect('near', 'here', 0.9);
  standings.of('stalled' as PeerId).stalling();
  standings.fault('busy' as PeerId, 'busy', { retry_after_ms: 400 });
  assert.deepEqual(names(), ['near', 'far', 'loaded', 'busy', 'stalled']);
});

test('the only holder is a candidate again within seconds of a stall, and at once when a byte comes', async () => {
  const { clock, standings, directory: d, connect, names } = directory();
  connect('p');
  const [source] = d.find(DIGEST, SIZE);
  for (let i = 0; i < 5; i++) {
    source!.blame('stalled');
    assert.deepEqual(names(), []);
    assert.deepEqual(d.explain(DIGEST), [{ peer: 'p', reason: 'stalled' }]);
    await clock.advance(8000);
    assert.deepEqual(names(), ['p'], 'never left alone for long');
  }
  source!.blame('stalled');
  standings.of('p' as PeerId).heard(1);
  assert.deepEqual(names(), ['p']);
});

test('every source of a peer has the one standing of that peer', () => {
  const { directory: d, connect } = directory();
  connect('p');
  const [[one], [two]] = [d.find(DIGEST, SIZE), d.find(DIGEST, SIZE)];
  one!.standing.begin();
  assert.equal(two!.standing.in_flight, 1);
});

test('requests on a connection that was replaced are to be asked again soon, and blame nobody', async () => {
  const { directory: d, standings, connect, names } = directory();
  const lost = connect('p');
  const [source] = d.find(DIGEST, SIZE);
  const { signal } = new AbortController();
  const asked = [source!.fetch(0, SIZE, { signal }), source!.list({ max_pieces: 1, signal })];
  connect('p');
  lost.reject(new DaemonError('internal', 'the connection to the peer is gone'));
  for (const request of asked) {
    await assert.rejects(request, (error) => {
      assert.ok(hasCode(error, 'unavailable'));
      assert.equal(typeof error.facts['retry_after_ms'], 'number');
      return true;
    });
  }
  for (const fault of ['gone', 'stalled', 'too_slow'] satisfies SourceFault[]) source!.blame(fault);
  assert.equal(standings.of('p' as PeerId).excluded(), undefined);
  assert.deepEqual(names(), ['p']);
  source!.blame('wrong_piece');
  assert.deepEqual(names(), [], 'a lie is a lie on whichever connection');
});

test('requests on a connection that was lost say so, and its peer is left alone for a moment', async () => {
  const { directory: d, standings, connect } = directory();
  const lost = connect('p');
  const [source] = d.find(DIGEST, SIZE);
  const asked = source!.fetch(0, SIZE, { signal: new AbortController().signal });
  lost.reject(new DaemonError('internal', 'the connection to the peer is gone'));
  await assert.rejects(asked, (error) => hasCode(error, 'internal'));
  source!.blame('gone');
  assert.equal(standings.of('p' as PeerId).excluded()?.reason, 'gone');
});
