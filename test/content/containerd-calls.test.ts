// Which calls prove that containerd uses the daemon.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { OWN_NAMESPACE } from '../../src/rpc/own-calls.ts';
import type { UnaryMethod } from '../../src/rpc/service.ts';
import { ContentDoor, someBytes } from './content-door.ts';
import { ref, total } from './pulled-layer.ts';

const INFO = '/containerd.services.content.v1.Content/Info';

async function info(door: ContentDoor, namespace: string): Promise<void> {
  const method = door.table.get(INFO) as UnaryMethod<{ digest: string }, unknown>;
  const digest = door.store.put(someBytes(3), 'owned');
  await method.handle({ digest }, { signal: new AbortController().signal, namespace });
}

test('a call is noted with its namespace and time, before it is answered', async () => {
  const door = new ContentDoor();
  const heard: number[] = [];
  const forget = door.calls.onCall(() => heard.push(door.calls.count));
  await info(door, 'k8s.io');
  assert.deepEqual([door.calls.count, heard], [1, [1]]);
  const { method, namespace, at_ms } = door.calls.last!;
  assert.deepEqual([method, namespace, at_ms], ['Info', 'k8s.io', door.clock.now_ms()]);
  forget();
  await info(door, '');
  assert.deepEqual([door.calls.count, heard], [2, [1]], 'ctr of 1.x names no namespace');
});

test('our own commands are not taken for containerd', async () => {
  const door = new ContentDoor();
  await info(door, OWN_NAMESPACE);
  assert.deepEqual([door.calls.count, door.calls.last], [0, undefined]);
});

test('a write counts when its stream opens, a refused call too', async () => {
  const door = new ContentDoor();
  const writer = door.writer();
  await writer.open(ref, total);
  const lastMethod = () => door.calls.last?.method;
  assert.equal(lastMethod(), 'Write');
  await assert.rejects(door.unary('Status', { ref: 'unknown' }));
  assert.equal(lastMethod(), 'Status');
  assert.equal(door.calls.count, 2);
});
