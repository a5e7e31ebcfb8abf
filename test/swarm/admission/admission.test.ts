import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { chmod, mkdtemp, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { hasCode } from '../../../src/base/errors.ts';
import { admitAsDialer, admitAsListener } from '../../../src/swarm/admission/admission.ts';
import { encodeAdmission, proofMessage } from '../../../src/swarm/admission/admission-protocol.ts';
import { ClusterKeys, generateClusterKey } from '../../../src/swarm/admission/cluster-key.ts';
import { loadIdentity } from '../../../src/swarm/transport/identity.ts';
import { settle } from '../../fakes/fake-clock.ts';
import { MemoryStream } from '../memory-stream.ts';

const { signal } = new AbortController();
const keys = (...lines: string[]): ClusterKeys => ClusterKeys.parse(lines.join('\n'), 'test');
const [one, two, three] = [generateClusterKey(), generateClusterKey(), generateClusterKey()];

async function admit(dialer: ClusterKeys, listener: ClusterKeys) {
  const [a, b] = MemoryStream.pair();
  let proved = false;
  const outcomes = await Promise.allSettled([
    admitAsDialer(a.stream, { keys: dialer, self: 'A', peer: 'B', signal }),
    admitAsListener(b.stream, {
      keys: listener,
      self: 'B',
      peer: 'A',
      signal,
      onProved: () => {
        proved = true;
      },
    }),
  ]);
  return { outcomes, proved, dialer: a, listener: b };
}

const cases = [
  { id: 'the same key', dialer: keys(one), listener: keys(one), admitted: true },
  {
    id: 'base64 and hex of one key',
    dialer: keys(one),
    listener: keys(Buffer.from(one, 'hex').toString('base64')),
    admitted: true,
  },
  {
    id: 'a new and an old key, old only',
    dialer: keys(two, one),
    listener: keys(one),
    admitted: true,
  },
  {
    id: 'old only, a new and an old key',
    dialer: keys(one),
    listener: keys(two, one),
    admitted: true,
  },
  { id: 'different keys', dialer: keys(one), listener: keys(two), admitted: false },
  {
    id: 'two keys, neither in common',
    dialer: keys(one, two),
    listener: keys(three),
    admitted: false,
  },
];
for (const { id, dialer, listener, admitted } of cases) {
  test(`admission with ${id}: ${admitted ? 'both admit' : 'both name the wrong key'}`, async () => {
    const { outcomes, proved } = await admit(dialer, listener);
    assert.equal(proved, admitted);
    for (const outcome of outcomes) {
      if (admitted) assert.equal(outcome.status, 'fulfilled');
      else {
        assert.ok(outcome.status === 'rejected' && hasCode(outcome.reason, 'permission_denied'));
        assert.equal(outcome.reason.facts['reason'], 'wrong_key');
      }
    }
  });
}

test('what a dialer sent once does not admit again', async () => {
  const { dialer } = await admit(keys(one), keys(one));
  const [attacker, b] = MemoryStream.pair();
  const again = admitAsListener(b.stream, {
    keys: keys(one),
    self: 'B',
    peer: 'A',
    signal,
    onProved: () => assert.fail('a replay is no proof'),
  });
  const rejected = assert.rejects(again, (e) => hasCode(e, 'permission_denied'));
  for (const frame of dialer.sent) attacker.send(frame);
  await rejected;
});

test('a peer that sends our own frames back is refused', async () => {
  const [a, mirror] = MemoryStream.pair();
  mirror.addEventListener('message', (event) => {
    mirror.send((event as unknown as { data: Uint8Array }).data);
  });
  await assert.rejects(
    admitAsDialer(a.stream, { keys: keys(one), self: 'A', peer: 'B', signal }),
    (e) => hasCode(e, 'protocol_error'),
  );
});

const misused = [
  { id: 'made in the other role', change: { role: 'listener' as const } },
  { id: 'made by another peer', change: { prover: 'C' } },
  { id: 'made for another peer', change: { verifier: 'C' } },
  { id: 'made for another nonce', change: { listener_nonce: randomBytes(32) } },
];
for (const { id, change } of misused) {
  test(`a proof ${id} does not admit, though the key is right`, async () => {
    const [attacker, b] = MemoryStream.pair();
    const dialer_nonce = randomBytes(32);
    attacker.addEventListener(
      'message',
      (event) => {
        const frame = (event as unknown as { data: Uint8Array }).data;
        const facts = {
          role: 'dialer' as const,
          prover: 'A',
          verifier: 'B',
          dialer_nonce,
          listener_nonce: frame.subarray(4),
        };
        attacker.send(
          encodeAdmission('proof', keys(one).prove(proofMessage({ ...facts, ...change }))),
        );
      },
      { once: true },
    );
    const refused = assert.rejects(
      admitAsListener(b.stream, {
        keys: keys(one),
        self: 'B',
        peer: 'A',
        signal,
        onProved: () => assert.fail('this proof is not for us'),
      }),
      (e) => hasCode(e, 'permission_denied'),
    );
    attacker.send(encodeAdmission('nonce', dialer_nonce));
    await refused;
  });
}

test('a silent peer is given up when the signal fires', async () => {
  const [a] = MemoryStream.pair();
  const quit = new AbortController();
  const waiting = admitAsDialer(a.stream, {
    keys: keys(one),
    self: 'A',
    peer: 'B',
    signal: quit.signal,
  });
  const rejected = assert.rejects(waiting, /enough/);
  await settle();
  quit.abort(new Error('enough'));
  await rejected;
});

test('a cluster key file is refused when it is missing, short, malformed, too long or open to others', async (t) => {
  const dir = await mkdtemp(join(tmpdir(), 'layerswarm-key-'));
  t.after(() => rm(dir, { recursive: true }));
  const path = join(dir, 'cluster.key');
  await assert.rejects(ClusterKeys.load(path), { code: 'config_invalid' });
  for (const text of ['', 'abcd', 'no key at all!', `${one}\n${two}\n${three}`]) {
    await writeFile(path, text, { mode: 0o600 });
    await assert.rejects(ClusterKeys.load(path), (e) => {
      assert.ok(hasCode(e, 'config_invalid'));
      assert.ok(!e.message.includes(one));
      return true;
    });
  }
  await writeFile(path, `# cluster\n\n${one}\n`);
  await ClusterKeys.load(path);
  await chmod(path, 0o644);
  await assert.rejects(ClusterKeys.load(path), { code: 'config_invalid' });
});

test('the identity is made once, kept, private, and never replaced when it is damaged', async (t) => {
  const dir = await mkdtemp(join(tmpdir(), 'layerswarm-id-'));
  t.after(() => rm(dir, { recursive: true }));
  const state = join(dir, 'state');
  const [first, racing] = await Promise.all([loadIdentity(state), loadIdentity(state)]);
  assert.ok(first.equals(racing));
  assert.ok(first.equals(await loadIdentity(state)));
  const path = join(state, 'identity.key');
  assert.equal((await stat(path)).mode & 0o777, 0o600);
  await chmod(path, 0o640);
  await assert.rejects(loadIdentity(state), { code: 'config_invalid' });
  await chmod(path, 0o600);
  await writeFile(path, 'damaged');
  await assert.rejects(loadIdentity(state), { code: 'config_invalid' });
});
