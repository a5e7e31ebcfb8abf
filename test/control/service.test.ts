import assert from 'node:assert/strict';
import { test } from 'node:test';
import { controlService, type DaemonStatus } from '../../src/control/service.ts';
import { loadService } from '../../src/rpc/proto.ts';
import type { UnaryMethod } from '../../src/rpc/service.ts';
import { exampleStatus } from '../cli/command-bench.ts';

const PATH = '/layerswarm.control.v1.Control/Status';
const codec = loadService('layerswarm/control/v1/control.proto', 'layerswarm.control.v1.Control');

async function ask(status: DaemonStatus): Promise<DaemonStatus> {
  const service = controlService({
    status: () => status,
    check: () => Promise.reject(new Error('not asked')),
    forgetLost: () => undefined,
  });
  const method = service.get(PATH) as UnaryMethod<object, DaemonStatus>;
  const call = { signal: new AbortController().signal, namespace: '' };
  const answer = await method.handle(method.decode(new Uint8Array()), call);
  return codec.method<object, DaemonStatus>('Status').decodeResponse(method.encode(answer));
}

test('a status arrives as it was told', async () => {
  assert.deepEqual(await ask(exampleStatus()), exampleStatus());
});

test('byte counts beyond 32 bits arrive whole', async () => {
  const status = exampleStatus();
  status.traffic!.receivedFromPeersBytes = 5e12;
  assert.equal((await ask(status)).traffic?.receivedFromPeersBytes, 5e12);
});

test('lists are bounded', async () => {
  const status = exampleStatus();
  status.swarm!.bootstrap = Array.from({ length: 1500 }, (_, i) => ({
    address: `n${i}:1`,
    state: 'waiting',
    reason: '',
  }));
  assert.equal((await ask(status)).swarm?.bootstrap.length, 1000);
});
