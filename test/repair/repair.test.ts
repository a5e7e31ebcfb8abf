// Which records of containerd `repair` would take away, what it keeps first, and what it leaves alone.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DaemonError, hasCode } from '../../src/base/errors.ts';
import {
  applyRepair,
  type DiskState,
  planRepair,
  type RepairOptions,
} from '../../src/host/repair/repair.ts';
import { FakeClock } from '../fakes/fake-clock.ts';
import { FakeContainerd } from './fake-containerd.ts';

const [A, B, C, D] = ['a', 'b', 'c', 'd'].map((c) => `sha256:${c.repeat(64)}`) as [
  string,
  string,
  string,
  string,
];
const never = new AbortController().signal;
const ALL: RepairOptions = { digests: [], namespaces: [], socket_path: '/run/x.sock' };

/** A daemon that has lost `lost`, and a containerd that knows them in `default`. */
function bench(lost: readonly string[], states: Readonly<Record<string, DiskState>> = {}) {
  const containerd = new FakeContainerd();
  const manifests = new Map<string, object>();
  const disk = new Map(Object.entries(states));
  const modules = {
    containerd,
    clock: new FakeClock(),
    daemon: {
      lost: async () => lost.map((digest) => ({ digest })),
      check: async (digest: string) =>
        disk.get(digest) ?? (lost.includes(digest) ? 'lost' : 'right'),
    },
    door: {
      read: async (digest: string) => {
        const manifest = manifests.get(digest);
        if (manifest === undefined) throw new DaemonError('not_found', 'gone');
        return Buffer.from(JSON.stringify(manifest));
      },
    },
  } as const;
  for (const digest of lost) containerd.knows('default', digest);
  return { containerd, manifests, disk, modules };
}

const descriptor = (digest: string) => ({ digest, size: 1, mediaType: 'x' });

test('every namespace that knows a lost blob is named, with the images that are made of it', async () => {
  const { containerd, manifests, modules } = bench([C]);
  containerd.knows('k8s.io', C);
  containerd.knows('empty', A);
  manifests.set(A, { manifests: [descriptor(B)] });
  manifests.set(B, { config: descriptor(D), layers: [descriptor(C)] });
  containerd.named.set('default', [
    { name: 'app:1', target: A },
    { name: 'other', target: D },
  ]);
  const { entries, notes } = await planRepair(modules, ALL, never);
  assert.deepEqual(
    entries.map(({ namespace, digest, images }) => [namespace, digest, images]),
    [
      ['default', C, ['app:1']],
      ['k8s.io', C, []],
    ],
  );
  assert.deepEqual([notes, containerd.log], [[], []]);
});

test('a lost manifest is the target of its image, though it can no longer be read', async () => {
  const { containerd, modules } = bench([A]);
  containerd.named.set('default', [{ name: 'app:1', target: A }]);
  const { entries } = await planRepair(modules, ALL, never);
  assert.deepEqual(entries[0]?.images, ['app:1']);
});

test('a manifest that leads to itself ends', async () => {
  const { containerd, manifests, modules } = bench([C]);
  manifests.set(A, { manifests: [descriptor(B)] });
  manifests.set(B, { manifests: [descriptor(A)] });
  containerd.named.set('default', [{ name: 'loop', target: A }]);
  assert.deepEqual((await planRepair(modules, ALL, never)).entries[0]?.images, []);
});

test('what hangs on a record alone is held for an hour before the record goes; what is lost itself is not', async () => {
  const { containerd, modules } = bench([A, B]);
  containerd.knows('default', A, {
    'containerd.io/gc.ref.content.m.0': B,
    'containerd.io/gc.ref.content.l.1': C,
    'containerd.io/gc.ref.snapshot.overlayfs': D,
    'containerd.io/gc.ref.snapshot.native/7': D,
    'containerd.io/distribution.source.x': 'app',
  });
  const plan = await planRepair(modules, ALL, never);
  const done = await applyRepair(modules, plan, never);
  assert.deepEqual(
    done.map(({ outcome }) => outcome),
    ['forgotten', 'forgotten'],
  );
  assert.deepEqual(containerd.log, [
    'hold default',
    'forget default sha256:aa',
    'forget default sha256:bb',
  ]);
  const [lease] = containerd.held;
  assert.deepEqual(lease?.resources, [
    { type: 'content', id: C },
    { type: 'snapshots/overlayfs', id: D },
    { type: 'snapshots/native', id: D },
  ]);
  const now_epoch_ms = Number(modules.clock.wall_ns() / 1_000_000n);
  assert.equal(lease.until_epoch_ms - now_epoch_ms, 3_600_000);
});

test('a blob that a peer has brought back meanwhile keeps its record', async () => {
  const { containerd, disk, modules } = bench([A]);
  const plan = await planRepair(modules, ALL, never);
  disk.set(A, 'right');
  assert.equal((await applyRepair(modules, plan, never))[0]?.outcome, 'kept');
  assert.deepEqual(containerd.log, []);
});

test('named blobs are read first: a right one is left alone, a wrong or absent one is not', async () => {
  const { containerd, modules } = bench([], { [A]: 'right', [B]: 'absent', [C]: 'lost' });
  for (const digest of [A, B, C]) containerd.knows('default', digest);
  const { entries, notes } = await planRepair(modules, { ...ALL, digests: [A, B, C, B] }, never);
  assert.deepEqual(
    entries.map(({ digest }) => digest),
    [B, C],
  );
  assert.deepEqual(notes, [`${A} is right on disk, to its last byte`]);
});

test('a lost blob that no namespace knows is a note', async () => {
  const { containerd, modules } = bench([]);
  containerd.knows('default', A);
  const plan = await planRepair(
    { ...modules, daemon: { ...modules.daemon, check: async () => 'lost' } },
    { ...ALL, digests: [D] },
    never,
  );
  assert.deepEqual(plan.entries, []);
  assert.match(plan.notes.join(), /containerd has no record of it/);
});

test('only the namespaces that are named are looked at, and they must be there', async () => {
  const { containerd, modules } = bench([A]);
  containerd.knows('k8s.io', A);
  const one = await planRepair(modules, { ...ALL, namespaces: ['k8s.io'] }, never);
  assert.deepEqual(
    one.entries.map(({ namespace }) => namespace),
    ['k8s.io'],
  );
  await assert.rejects(
    planRepair(modules, { ...ALL, namespaces: ['typo'] }, never),
    (error) => hasCode(error, 'not_found') && error.message.includes('"typo"'),
  );
});

for (const [what, plugins, says] of [
  ['uses its own store', [{ id: 'content', address: undefined }], /its content store is "content"/],
  ['uses another daemon', [{ id: 'layerswarm', address: 'unix:///run/y.sock' }], /\/run\/y\.sock/],
  ['has no content store', [], /its content store is none/],
] as const) {
  test(`a containerd that ${what} is left alone`, async () => {
    const { containerd, modules } = bench([A]);
    containerd.plugins = [...plugins];
    await assert.rejects(
      planRepair(modules, ALL, never),
      (error) => hasCode(error, 'failed_precondition') && says.test(error.message),
    );
    assert.deepEqual(containerd.log, []);
  });
}

test('the socket may be written as a URL', async () => {
  const { containerd, modules } = bench([A]);
  containerd.plugins = [{ id: 'layerswarm', address: 'unix:///run/x.sock' }];
  assert.equal((await planRepair(modules, ALL, never)).entries.length, 1);
});
