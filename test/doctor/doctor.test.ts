import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { DaemonError, hasCode } from '../../src/base/errors.ts';
import { renderFindings, runDoctorCommand, summaryOf } from '../../src/cli/doctor-command.ts';
import { probeDaemon } from '../../src/host/doctor/daemon-probe.ts';
import { parseOnly, runDoctor, type RunnableCheck } from '../../src/host/doctor/doctor.ts';
import { CHECK_IDS, type Finding, findingOf, remark } from '../../src/host/doctor/finding.ts';
import { commandBench } from '../cli/command-bench.ts';
import { FakeClock } from '../fakes/fake-clock.ts';
import { doctorModules, healthyView } from './doctor-bench.ts';

const never = new AbortController().signal;
const fine = (deadline_ms = 1_000): RunnableCheck => ({
  deadline_ms,
  run: async () => findingOf('disk', 'room enough', [], {}),
});

test('the worst remark gives level and summary, and every command stands once', () => {
  const finding = findingOf(
    'disk',
    'fine',
    [
      remark('note', 'one', 'a'),
      remark('fail', 'two', 'b', 'a'),
      remark('warn', 'three', 'c'),
      remark('fail', 'four', 'd'),
    ],
    {},
  );
  assert.equal(finding.level, 'fail');
  assert.equal(finding.summary, 'two');
  assert.deepEqual(finding.details, ['four', 'three', 'one']);
  assert.deepEqual(finding.mend, ['b', 'a', 'd', 'c']);
});

test('a check that hangs is cut at its deadline, told to stop, and the others are not held up', async () => {
  const clock = new FakeClock();
  const stopped: string[] = [];
  const hanging: RunnableCheck = {
    deadline_ms: 5_000,
    run: (_, signal) =>
      new Promise(() => signal.addEventListener('abort', () => void stopped.push('stopped'))),
  };
  const checks = { disk: fine(), wiring: hanging };
  const running = runDoctor(doctorModules({ clock }), ['disk', 'wiring'], never, checks);
  await clock.advance(4_999);
  assert.deepEqual(stopped, []);
  await clock.advance(1);
  const found = await running;
  const { summary } = found[1]!;
  assert.deepEqual(
    found.map(({ level, mend }) => [level, ...mend]),
    [['ok'], ['fail', 'layerswarm doctor --only wiring']],
  );
  assert.match(summary, /did not end within 5 s/);
  assert.deepEqual(stopped, ['stopped']);
});

test('a check that throws becomes a finding of one line, never a stack', async () => {
  const broken: RunnableCheck = {
    deadline_ms: 1_000,
    run: () => Promise.reject(new TypeError('x is undefined\n    at somewhere')),
  };
  const found = await runDoctor(doctorModules(), ['disk'], never, { disk: broken });
  const text = 'this check could not be made: x is undefined';
  const facts = { error: 'internal' };
  assert.deepEqual(found, [findingOf('disk', '', [remark('fail', text)], facts)]);
});

test('an interrupted run ends as cancelled', async () => {
  const stop = new AbortController();
  const hanging: RunnableCheck = { deadline_ms: 1_000, run: () => new Promise(() => undefined) };
  const running = runDoctor(doctorModules(), ['disk'], stop.signal, { disk: hanging });
  setImmediate(() => stop.abort());
  await assert.rejects(running, (error) => hasCode(error, 'cancelled'));
});

test('the daemon is asked once for all checks, and a silent one costs one second', async () => {
  const clock = new FakeClock();
  let asked = 0;
  const fetchStatus = (): Promise<never> => {
    asked++;
    return new Promise(() => undefined);
  };
  const reads = (): RunnableCheck => ({
    deadline_ms: 3_000,
    run: async (context) => {
      const probe = await context.daemon();
      return findingOf('socket', probe.kind, [], {});
    },
  });
  const modules = doctorModules({ clock, fetchStatus });
  const running = runDoctor(modules, ['socket', 'disk'], never, { socket: reads(), disk: reads() });
  await clock.advance(1_000);
  assert.deepEqual(
    (await running).map((f) => f.summary),
    ['hangs', 'hangs'],
  );
  assert.equal(asked, 1);
});

const failures = [
  ['no-file', new DaemonError('unavailable', 'x', { errno: 'ENOENT' })],
  ['refused', new DaemonError('unavailable', 'x', { errno: 'ECONNREFUSED' })],
  ['hangs', new DaemonError('unavailable', 'x', { errno: 'EAGAIN' })],
  ['hangs', new DaemonError('deadline_exceeded', 'x')],
  ['no-permission', new DaemonError('permission_denied', 'x', { errno: 'EACCES' })],
  ['broken', new DaemonError('unimplemented', 'x')],
  ['broken', new TypeError('x')],
] as const;

for (const [kind, error] of failures) {
  const code = error instanceof DaemonError ? `${error.code} ${String(error.facts['errno'])}` : '';
  test(`a status call that fails with ${code} ${error.name} means ${kind}`, async () => {
    const fetchStatus = () => Promise.reject(error);
    const probe = await probeDaemon({ clock: new FakeClock(), fetchStatus }, '/x', never);
    assert.equal(probe.kind, kind);
  });
}

test('checks can be chosen by name, come in the order of the list, and unknown ones are refused', () => {
  assert.deepEqual(parseOnly(undefined), CHECK_IDS);
  assert.deepEqual(parseOnly('peers, socket'), ['socket', 'peers']);
  assert.throws(
    () => parseOnly('socket,sockte'),
    (error) => hasCode(error, 'invalid_argument'),
  );
});

const findings: readonly Finding[] = [
  findingOf('socket', 'it answers', [], {}),
  findingOf('peers', '', [remark('note', 'alone', 'layerswarm setup --join HOST:7878')], {}),
  findingOf(
    'wiring',
    '',
    [remark('fail', 'not\u001b[31m wired\n', 'layerswarm setup'), remark('warn', 'old')],
    {},
  ),
];

test('findings are lines with a mark, with details and commands below what is not ok, and a count', () => {
  assert.equal(
    renderFindings(findings, { color: false }),
    [
      'ok    socket          it answers',
      'note  peers           alone',
      '                      mend: layerswarm setup --join HOST:7878',
      'FAIL  wiring          not [31m wired',
      '                      old',
      '                      mend: layerswarm setup',
      '3 checks: 2 ok (1 with notes), 0 warnings, 1 failure',
    ].join('\n'),
  );
});

test('colours are used only where they are asked for', () => {
  const plain = renderFindings(findings, { color: false });
  assert.ok(!plain.includes('\u001b'));
  const colored = renderFindings(findings, { color: true });
  assert.ok(colored.includes('\u001b[31mFAIL'));
});

test('the summary counts each level', () => {
  const counts = { checks: 3, ok: 1, notes: 1, warnings: 0, failures: 1 };
  assert.deepEqual(summaryOf(findings), counts);
});

type World = Parameters<typeof runDoctorCommand>[0]['world'];

function world(over: Partial<World> = {}): World {
  const { run, fetchStatus, openBlobDoor, openDaemon, loadClusterKey } = doctorModules();
  return { run, fetchStatus, openBlobDoor, openDaemon, loadClusterKey, ...over };
}

test('doctor ends with 0 when all is well, 1 after warnings and 2 after failures', async (t) => {
  const draining = async () => healthyView({ state: 'draining' });
  const gone = () => Promise.reject(new DaemonError('unavailable', 'x', { errno: 'ENOENT' }));
  for (const [code, fetchStatus] of [
    [0, async () => healthyView()],
    [1, draining],
    [2, gone],
  ] as const) {
    const { run } = commandBench(t, { doctor: async () => world({ fetchStatus }) });
    assert.equal((await run('doctor', '--only', 'socket')).code, code);
  }
});

test('doctor as JSON holds the findings with their facts and the counts, and nothing else', async (t) => {
  const { run } = commandBench(t, { doctor: async () => world() });
  const { out, err } = await run('doctor', '--only', 'socket', '--json');
  assert.equal(err, '');
  const report = JSON.parse(out) as { checks: Finding[]; summary: object };
  assert.deepEqual(Object.keys(report), ['checks', 'summary']);
  assert.equal(report.checks[0]?.id, 'socket');
  assert.equal(report.checks[0].facts['pid'], 42);
  assert.deepEqual(report.summary, { checks: 1, ok: 1, notes: 0, warnings: 0, failures: 0 });
});

test('a check that does not exist is a usage error', async (t) => {
  const { run } = commandBench(t, { doctor: async () => world() });
  const { code, err } = await run('doctor', '--only', 'sockte');
  assert.equal(code, 64);
  assert.match(err, /there is no check "sockte"; there are: socket, /);
});

test('a configuration that cannot be used is a finding that names every problem, and the rest is checked', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'layerswarm-doctor-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const file = join(directory, 'c.toml');
  writeFileSync(file, '[swarm]\nzonee = "x"\nlisten_port = "a"\n');
  const { run } = commandBench(t, { doctor: async () => world() });
  const { code, out } = await run('doctor', '--only', 'config,socket', '--config', file);
  assert.equal(code, 2);
  assert.match(out, /zonee/);
  assert.match(out, /listen_port/);
  assert.match(out, /^ok +socket/m);
  const gone = await run('doctor', '--only', 'config', '--config', join(directory, 'no.toml'));
  assert.equal(gone.code, 2);
  assert.match(gone.out, /ENOENT/);
});
