import assert from 'node:assert/strict';
import { test } from 'node:test';
import { promisedAt } from './aftermath.ts';
import { keptWrites } from './cut.ts';
import { instants } from './instants.ts';
import type { LogEntry } from './write-log.ts';

const write = (offset: number, length: number, data: number): LogEntry => ({
  kind: 'write',
  at_ms: data,
  offset,
  length,
  data,
});
const flush: LogEntry = { kind: 'flush', at_ms: 0, offset: 0, length: 0, data: 0 };
const LOG = [write(0, 4096, 1), flush, write(4096, 65_536, 2), write(0, 4096, 3), flush];
const kept = (entries: number, loss: 'none' | 'unflushed' | 'some') =>
  keptWrites(LOG, { entries, loss, seed: 'a' });

test('a cut keeps every acknowledged write when the disk loses none, and no later one', () => {
  assert.deepEqual(
    kept(3, 'none').map((entry) => entry.data),
    [1, 2],
  );
});

test('a cut keeps what was flushed before it and nothing else when the disk loses all the rest', () => {
  assert.deepEqual(
    kept(4, 'unflushed').map((entry) => entry.data),
    [1],
  );
  assert.deepEqual(
    kept(5, 'unflushed').map((entry) => entry.data),
    [1, 2, 3],
  );
});

test('a disk that loses some keeps whole blocks of 4 KiB, by the seed, and all that was flushed', () => {
  const some = kept(4, 'some');
  assert.deepEqual(some, kept(4, 'some'));
  assert.equal(some[0]!.data, 1);
  assert.ok(some.length > 3 && some.length < 17, `${some.length} of 18 blocks`);
  for (const { offset, length, data } of some.slice(1)) {
    assert.equal(length, 4096);
    assert.ok(data === 3 ? offset === 0 : offset - 4096 === data - 2);
  }
});

test('an image is promised from when a client is told until it begins to be given back', () => {
  const told = [
    { position: 10, at_ms: 1, namespace: 'default', ref: 'a', has: true },
    { position: 20, at_ms: 2, namespace: 'default', ref: 'a', has: false },
    { position: 30, at_ms: 3, namespace: 'other', ref: 'a', has: true },
  ];
  const at = (position: number) => promisedAt(told, position).map((entry) => entry.namespace);
  assert.deepEqual(
    [9, 10, 19, 20, 30].map((position) => at(position)),
    [[], ['default'], ['default'], [], ['other']],
  );
});

test('the instants are the same for one seed, others for another, and all within the log', () => {
  const told = [{ position: 1, at_ms: 1, namespace: 'default', ref: 'a', has: true }];
  const of = (seed: string) => instants({ log: LOG, told, promises: [2] }, { count: 40, seed });
  assert.deepEqual(of('a'), of('a'));
  assert.notDeepEqual(of('a'), of('b'));
  for (const cut of of('a')) assert.ok(cut.entries >= 0 && cut.entries <= LOG.length);
});

test('half of the instants are those of promises', () => {
  const told = [{ position: 1, at_ms: 1, namespace: 'default', ref: 'a', has: true }];
  const cuts = instants({ log: LOG, told, promises: [77] }, { count: 60, seed: 'a' });
  assert.equal(cuts.filter((cut) => cut.entries === 77).length, 30);
});
