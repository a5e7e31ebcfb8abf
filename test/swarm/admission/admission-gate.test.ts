import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Connection, Stream } from '@libp2p/interface';
import { multiaddr } from '@multiformats/multiaddr';
import { admitAsListener } from '../../../src/swarm/admission/admission.ts';
import { AdmissionGate } from '../../../src/swarm/admission/admission-gate.ts';
import { ClusterKeys, generateClusterKey } from '../../../src/swarm/admission/cluster-key.ts';
import { FakeClock, settle } from '../../fakes/fake-clock.ts';
import { MemoryLogger } from '../../fakes/memory-logger.ts';
import { MemoryStream } from '../memory-stream.ts';

const keys = ClusterKeys.parse(generateClusterKey(), 'test');
const { signal } = new AbortController();

/** An outbound connection to the one peer; `answers` false = its way has closed after the handshake. */
class Outbound extends EventTarget {
  readonly direction = 'outbound';
  readonly remoteAddr = multiaddr('/ip4/10.0.0.1/tcp/1');
  readonly remotePeer = { toString: () => 'peer', equals: () => true };
  streams = 0;
  isClosed = false;
  readonly #answers: boolean;

  constructor({ answers }: { readonly answers: boolean }) {
    super();
    this.#answers = answers;
  }

  get connection(): Connection {
    return this as unknown as Connection;
  }

  async newStream(): Promise<Stream> {
    this.streams += 1;
    const [ours, theirs] = MemoryStream.pair();
    const ends = { keys, self: 'peer', peer: 'me', signal, onProved: () => undefined };
    if (this.#answers) admitAsListener(theirs.stream, ends).catch(() => 'cut off');
    return ours.stream;
  }

  abort(): void {
    if (this.isClosed) return;
    this.isClosed = true;
    this.dispatchEvent(new Event('close'));
  }
}

function gateOf(clock: FakeClock, connected = { elsewhere: false }) {
  const proved: Connection[] = [];
  const gate = new AdmissionGate({
    keys,
    self: 'me',
    clock,
    logger: new MemoryLogger(),
    metrics: { admissions: { inc: () => undefined } },
    events: {
      precheck: () => (connected.elsewhere ? 'duplicate' : undefined),
      onProved: (connection) => proved.push(connection),
      onAdmitted: () => undefined,
    },
  });
  return { gate, proved };
}

test('of two own connections to one peer the first is admitted and the second never begins', async () => {
  const { gate, proved } = gateOf(new FakeClock());
  const [one, two] = [new Outbound({ answers: true }), new Outbound({ answers: true })];
  for (const { connection } of [one, two]) gate.open(connection);
  const outcomes = await Promise.all([one, two].map((c) => gate.outcome(c.connection)));
  assert.deepEqual(outcomes, ['ok', 'duplicate']);
  assert.deepEqual(proved, [one.connection]);
  assert.deepEqual([two.streams, two.isClosed, one.isClosed], [0, true, false]);
});

test('a connection whose way closes in its admission gives its place to the next one after half a second', async () => {
  const clock = new FakeClock();
  const { gate, proved } = gateOf(clock);
  const [one, two] = [new Outbound({ answers: false }), new Outbound({ answers: true })];
  gate.open(one.connection);
  await settle();
  gate.open(two.connection);
  await clock.advance(490);
  assert.deepEqual([one.isClosed, two.streams], [false, 0]);
  await clock.advance(20);
  assert.equal(await gate.outcome(one.connection), 'timeout');
  assert.equal(await gate.outcome(two.connection), 'ok');
  assert.deepEqual([one.isClosed, proved], [true, [two.connection]]);
});

test('a connection that waited for its turn does not begin when the peer has come in by itself meanwhile', async () => {
  const clock = new FakeClock();
  const connected = { elsewhere: false };
  const { gate, proved } = gateOf(clock, connected);
  const [one, two] = [new Outbound({ answers: false }), new Outbound({ answers: true })];
  gate.open(one.connection);
  gate.open(two.connection);
  await settle();
  connected.elsewhere = true;
  await clock.advance(510);
  assert.equal(await gate.outcome(two.connection), 'duplicate');
  assert.deepEqual([two.streams, two.isClosed, proved], [0, true, []]);
});
