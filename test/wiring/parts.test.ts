import assert from 'node:assert/strict';
import { test } from 'node:test';
import { inspect } from 'node:util';
import fc from 'fast-check';
import { DaemonError, hasCode } from '../../src/base/errors.ts';
import type { ContainerdTable } from '../../src/host/containerd-config.ts';
import { dumpFacts, isWired, requireSameButWiring } from '../../src/host/config-dump.ts';
import { ContainerdRestart, liveStoreOf } from '../../src/host/containerd-restart.ts';
import { unifiedDiff } from '../../src/host/file-diff.ts';
import { imagesLost, parseImages } from '../../src/host/image-check.ts';
import { settleOwnConfig } from '../../src/host/own-config.ts';
import { unitOverrideText } from '../../src/host/unit-override.ts';
import { FakeClock } from '../fakes/fake-clock.ts';

const BUILTIN = 'io.containerd.content.v1.content';
const DEFAULT = '/run/containerd/containerd.sock';
const SOCKET = '/run/layerswarm/layerswarm.sock';
const wired = {
  disabled_plugins: [BUILTIN],
  proxy_plugins: { layerswarm: { type: 'content', address: SOCKET } },
};

test('of two dumps only our wiring and the list of files may differ', () => {
  const before = {
    version: 2,
    imports: ['/a'],
    disabled_plugins: ['cri'],
    plugins: { x: { y: 1 } },
  };
  const after = {
    ...before,
    ...wired,
    imports: ['/b', '/c'],
    disabled_plugins: ['io.containerd.grpc.v1.cri', BUILTIN, BUILTIN],
  };
  requireSameButWiring(before, after, 'f');
  for (const [id, change, says] of [
    ['a setting', { plugins: { x: { y: 2 } } }, /plugins\.x\.y \(1 -> 2\)/],
    ['a lost table', { plugins: {} }, /plugins\.x \(\{"y":1\} -> nothing\)/],
    ['another disabled plugin', { disabled_plugins: [BUILTIN] }, /disabled_plugins/],
    ['another proxy', { proxy_plugins: { ...wired.proxy_plugins, s: {} } }, /proxy_plugins\.s/],
  ] as const) {
    assert.throws(
      () => requireSameButWiring(before, { ...after, ...change }, 'f'),
      (e) => hasCode(e, 'failed_precondition') && says.test(e.message),
      id,
    );
  }
});

test('wired is exactly our proxy at our socket and no built-in store', () => {
  assert.ok(isWired(dumpFacts(wired), SOCKET));
  const proxy = wired.proxy_plugins.layerswarm;
  for (const not of [
    { ...wired, disabled_plugins: [] },
    { ...wired, proxy_plugins: {} },
    { ...wired, proxy_plugins: { layerswarm: { ...proxy, address: '/x' } } },
    { ...wired, proxy_plugins: { other: proxy } },
    { ...wired, proxy_plugins: { ...wired.proxy_plugins, other: proxy } },
    { ...wired, proxy_plugins: 'nonsense', disabled_plugins: 7 },
  ]) {
    assert.ok(!isWired(dumpFacts(not), SOCKET), JSON.stringify(not));
  }
  assert.ok(
    isWired(
      dumpFacts({
        ...wired,
        proxy_plugins: { layerswarm: { type: 'content', address: `unix://${SOCKET}` } },
      }),
      SOCKET,
    ),
  );
});

test('the socket of containerd is read from a dump of every version', () => {
  const server = { 'io.containerd.server.v1.grpc': { address: '/four' } };
  const cases: readonly (readonly [object, string])[] = [
    [{ version: 3n, grpc: { address: '/three' } }, '/three'],
    [{ version: 4n, plugins: server }, '/four'],
    [{ version: 4n, plugins: { 'io.containerd.server.v1.grpc': { address: '' } } }, DEFAULT],
    [{ version: 4n, plugins: 'nonsense', grpc: 7 }, DEFAULT],
    [{}, DEFAULT],
  ];
  for (const [dump, socket] of cases)
    assert.equal(dumpFacts(dump as ContainerdTable).socket, socket, inspect(dump));
});

test('two content stores at a time are neither the one nor the other', () => {
  const row = (id: string, status = 'ok') => `io.containerd.content.v1  ${id}  -  ${status}\n`;
  assert.equal(liveStoreOf(row('content')), 'builtin');
  assert.equal(liveStoreOf(row('layerswarm')), 'layerswarm');
  assert.equal(liveStoreOf(row('content') + row('layerswarm')), 'other');
  assert.equal(liveStoreOf(row('content', 'skip') + row('layerswarm')), 'layerswarm');
  assert.equal(liveStoreOf(row('stargz')), 'other');
  assert.equal(liveStoreOf('io.containerd.grpc.v1  content  -  ok\n'), 'other');
});

test('images are worse off when they were readable and are no longer', () => {
  const hex = 'a'.repeat(64);
  const rows = `REF TYPE DIGEST STATUS SIZE UNPACKED\nr/a:1 app/x sha256:${hex} complete (3/3) 1.0 MiB/1.0 MiB true\nr/b:1 app/x sha256:${hex} incomplete (1/3) 1 B/2 B false\nr/c app/x sha256:${hex} unavailable (0/?) 0.0 B/? false\n`;
  assert.deepEqual(
    parseImages(rows).map((i) => [i.name, i.status]),
    [
      ['r/a:1', 'complete (3/3)'],
      ['r/b:1', 'incomplete (1/3)'],
      ['r/c', 'unavailable'],
    ],
  );
  const before = new Map([
    ['n whole', 'd complete (3/3) readable'],
    ['n half', 'd incomplete (1/3) readable'],
    ['n broken', 'd unavailable'],
  ]);
  assert.deepEqual(imagesLost(before, before), []);
  assert.deepEqual(imagesLost(before, new Map()), ['n whole', 'n half']);
  const worse = new Map([...before, ['n whole', 'd incomplete (2/3) readable'] as const]);
  assert.deepEqual(imagesLost(before, worse), ['n whole']);
});

test('a daemon that never answers is given up at the deadline', async () => {
  const clock = new FakeClock();
  const restart = new ContainerdRestart(
    {
      clock,
      run: async () => ({ code: 0, stdout: '', stderr: '' }),
      ctr: () => Promise.reject(new Error('not asked')),
      daemonAnswers: () => Promise.reject(new DaemonError('unavailable', 'no')),
    },
    { unit: 'containerd.service' },
  );
  const started = assert.rejects(restart.startDaemon(new AbortController().signal), (e) =>
    hasCode(e, 'unavailable'),
  );
  await clock.advance(31_000);
  await started;
  assert.equal(clock.pending, 0);
});

test('a diff shows what changes with three lines around it', () => {
  const before = Array.from({ length: 12 }, (_, i) => `line ${i}\n`).join('');
  const after = before.replace('line 5\n', 'five\nand more\n');
  assert.equal(
    unifiedDiff('/f', before, after),
    '--- /f\n+++ /f\n@@ -3,7 +3,8 @@\n line 2\n line 3\n line 4\n-line 5\n+five\n+and more\n line 6\n line 7\n line 8\n',
  );
  assert.equal(unifiedDiff('/f', undefined, 'a\n'), '--- /dev/null\n+++ /f\n@@ -0,0 +1,1 @@\n+a\n');
  assert.equal(unifiedDiff('/f', 'a\n', undefined), '--- /f\n+++ /dev/null\n@@ -1,1 +0,0 @@\n-a\n');
  assert.match(unifiedDiff('/f', 'a', 'a\n'), /^-a\n\\ No newline at end of file\n\+a$/m);
  assert.equal(unifiedDiff('/f', 'a', 'a'), '');
});

test('a diff holds every removed and every added line', () => {
  const lines = fc.array(fc.constantFrom('a', 'b', 'c', ''), { maxLength: 20 });
  fc.assert(
    fc.property(lines, lines, (old, fresh) => {
      const text = (list: string[]) => list.map((l) => `${l}\n`).join('');
      const rows = unifiedDiff('/f', text(old), text(fresh)).split('\n').slice(2, -1);
      const count = (mark: string) => rows.filter((r) => r.startsWith(mark)).length;
      assert.equal(fresh.length - old.length, count('+') - count('-'));
    }),
  );
});

test('the unit needs an override only where the host differs from the package', () => {
  const content_directory = '/var/lib/containerd/io.containerd.content.v1.content';
  const containerd_unit = 'containerd.service';
  assert.equal(unitOverrideText({ content_directory, containerd_unit }), undefined);
  assert.equal(unitOverrideText({ content_directory, containerd_unit: undefined }), undefined);
  const moved = unitOverrideText({
    content_directory: '/da ta/100%',
    containerd_unit: 'c.service',
  });
  assert.match(moved ?? '', /^\[Unit\]\nBefore=c\.service$/m);
  assert.match(moved ?? '', /^\[Service\]\nReadWritePaths="-\/da ta\/100%%"$/m);
  assert.match(
    unitOverrideText({ content_directory: '/home/c', containerd_unit }) ?? '',
    /^ProtectHome=no$/m,
  );
});

test('our own configuration is touched only where it has to be', () => {
  const content_directory = '/var/lib/containerd/io.containerd.content.v1.content';
  const settle = (text: string | undefined, join: string[] = [], dir = content_directory) =>
    settleOwnConfig(text, '/f', { content_directory: dir, join }).text;
  assert.equal(settle(undefined), undefined);
  assert.equal(settle('# mine'), '# mine');
  assert.equal(settle(undefined, ['a:1', 'a:1']), '[swarm]\nbootstrap = ["a:1"]\n');
  assert.equal(
    settle('[store]\ncontent_directory = "/x" # x\r\n', [], '/y'),
    '[store]\ncontent_directory = "/y" # x\r\n',
  );
  assert.equal(
    settle('[log]\nlevel = "info"', ['a:1']),
    '[log]\nlevel = "info"\n\n[swarm]\nbootstrap = ["a:1"]\n',
  );
  assert.equal(
    settle('[swarm]\n#bootstrap = []\n[log]\n', ['a:1']),
    '[swarm]\nbootstrap = ["a:1"]\n#bootstrap = []\n[log]\n',
  );
  assert.throws(
    () => settle('', ['nonsense']),
    (e) => hasCode(e, 'config_invalid'),
  );
});
