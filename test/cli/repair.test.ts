// The command around a repair: what is shown, what is asked, and how it ends.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DaemonError } from '../../src/base/errors.ts';
import type { RepairReport, RepairWorld } from '../../src/cli/repair-command.ts';
import { FakeContainerd } from '../repair/fake-containerd.ts';
import { commandBench } from './command-bench.ts';

const A = `sha256:${'a'.repeat(64)}`;

function bench(
  t: Parameters<typeof commandBench>[0],
  { confirm, known = ['default'] }: { confirm?: () => Promise<boolean>; known?: string[] } = {},
) {
  const containerd = new FakeContainerd();
  containerd.plugins = [{ id: 'layerswarm', address: '/run/layerswarm/layerswarm.sock' }];
  containerd.records.set('default', new Map());
  for (const namespace of known) {
    containerd.knows(namespace, A);
    containerd.named.set(namespace, [
      { name: "odd 'name", target: A },
      { name: `app@${A}`, target: A },
    ]);
  }
  const asked: string[] = [];
  const forgotten: string[] = [];
  const addresses: string[] = [];
  const repair = async (): Promise<RepairWorld> => ({
    openDaemon: async () => ({
      lost: async () => (forgotten.includes(A) ? [] : [{ digest: A }]),
      check: async () => 'lost',
      forgetLost: async (digest) => void forgotten.push(digest),
      [Symbol.dispose]: () => undefined,
    }),
    openBlobDoor: async () => ({
      probe: async () => ({ kind: 'missing' }),
      read: async () => Promise.reject(new DaemonError('not_found', 'gone')),
      [Symbol.dispose]: () => undefined,
    }),
    openContainerd: async (address) => {
      addresses.push(address);
      return containerd;
    },
    containerdAddress: async () => '/run/containerd/containerd.sock',
  });
  const host = {
    is_root: true,
    confirm:
      confirm &&
      ((question: string) => {
        asked.push(question);
        return confirm();
      }),
    wiring: () => Promise.reject(new Error('not needed')),
  };
  const { run } = commandBench(t, { repair, host });
  return { run, containerd, asked, forgotten, addresses };
}

test('a dry run shows the blob and its images and changes nothing', async (t) => {
  const { run, containerd, forgotten } = bench(t);
  const { code, out } = await run('repair', '--dry-run');
  assert.equal(code, 0);
  assert.match(
    out,
    new RegExp(`^${A} \\(10 B\\) is gone or wrong on disk; namespace default`, 'm'),
  );
  assert.match(out, /dry run: nothing was changed/);
  assert.deepEqual([containerd.log, forgotten, containerd.closed], [[], [], true]);
});

test('it asks, does it, and names the pull for a shell', async (t) => {
  const { run, containerd, asked, forgotten } = bench(t, {
    confirm: async () => true,
    known: ['default', 'k8s.io'],
  });
  const { code, out, err } = await run('repair');
  assert.equal(code, 0, err);
  assert.equal(asked.length, 1);
  assert.deepEqual(containerd.log, [
    `forget default ${A.slice(0, 9)}`,
    `forget k8s.io ${A.slice(0, 9)}`,
  ]);
  assert.match(out, /forgotten 2 of 2 records/);
  assert.ok(out.includes(`ctr -n default images pull 'odd '\\''name'`), out);
  assert.ok(out.includes(`crictl pull 'odd '\\''name'`), out);
  assert.ok(!out.includes('pull app@'), 'one pull by name is enough');
  assert.deepEqual(forgotten, [A], 'the daemon misses it no longer');
});

test('a no changes nothing', async (t) => {
  const { run, containerd } = bench(t, { confirm: async () => false });
  const { code, out } = await run('repair');
  assert.equal(code, 130);
  assert.match(out, /nothing was changed/);
  assert.deepEqual(containerd.log, []);
});

test('without a terminal it wants --yes', async (t) => {
  const { run, containerd } = bench(t);
  const refused = await run('repair');
  assert.equal(refused.code, 80);
  assert.match(refused.err, /--yes/);
  assert.deepEqual(containerd.log, []);
  assert.equal((await run('repair', '--yes')).code, 0);
});

test('as JSON it is one object', async (t) => {
  const { run } = bench(t);
  const { out } = await run('repair', '--json', '--yes');
  const report = JSON.parse(out) as RepairReport;
  assert.deepEqual([report.outcome, report.entries.length, report.notes], ['done', 1, []]);
  assert.equal(report.entries[0]?.outcome, 'forgotten');
  assert.equal(report.containerd, '/run/containerd/containerd.sock');
  assert.equal(report.commands.length, 1);
});

test('a record in a namespace that was left out keeps the blob lost', async (t) => {
  const { run, forgotten } = bench(t, { known: ['default', 'k8s.io'] });
  const { code } = await run('repair', '--yes', '--namespace', 'default');
  assert.equal(code, 0);
  assert.deepEqual(forgotten, []);
});

test('nothing lost is nothing to do, and what nobody has a record of is missed no longer', async (t) => {
  const { run, forgotten } = bench(t, { known: [] });
  const { code, out } = await run('repair');
  assert.equal(code, 0);
  assert.match(out, /nothing to do/);
  assert.deepEqual(forgotten, [A]);
});

test("containerd's address may be given, and a digest must be one", async (t) => {
  const { run, addresses } = bench(t);
  await run('repair', '--dry-run', '--containerd-address', 'unix:///run/c.sock');
  assert.deepEqual(addresses, ['/run/c.sock']);
  assert.equal((await run('repair', 'sha256:short')).code, 64);
});
