import assert from 'node:assert/strict';
import { readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { DaemonError } from '../../src/base/errors.ts';
import { FakeClock } from '../fakes/fake-clock.ts';
import { commandBench, exampleStatus } from './command-bench.ts';

test('version and help are printed and are no failures', async (t) => {
  const { run } = commandBench(t);
  assert.deepEqual(await run('--version'), { code: 0, out: '9.8.7\n', err: '' });
  const help = await run('--help');
  assert.equal(help.code, 0);
  for (const name of ['daemon', 'status', 'config', 'keygen']) assert.ok(help.out.includes(name));
});

test('a mistyped command line ends with 64 and a suggestion', async (t) => {
  const { run } = commandBench(t);
  const { code, err, out } = await run('statsu');
  assert.equal(code, 64);
  assert.equal(out, '');
  assert.match(err, /^layerswarm: unknown command 'statsu'\n\(Did you mean status\?\)/);
  assert.equal((await run('status', '--jsom')).code, 64);
  assert.equal((await run('daemon', 'extra')).code, 64);
});

const exits = [
  ['connected', 0],
  ['alone', 1],
  ['degraded', 1],
  ['starting', 2],
  ['draining', 2],
  ['of a later version', 2],
] as const;

for (const [state, code] of exits) {
  test(`status ends with ${code} when the daemon is ${state}`, async (t) => {
    const { run } = commandBench(t, { fetchStatus: async () => exampleStatus(state) });
    const result = await run('status', '--socket', '/x.sock');
    assert.equal(result.code, code);
    assert.match(result.out, new RegExp(state));
  });
}

test('status asks the socket of the configuration, or the one that is named', async (t) => {
  const asked: string[] = [];
  const { run, directory } = commandBench(t, {
    fetchStatus: async (socket) => {
      asked.push(socket);
      return exampleStatus();
    },
  });
  const file = join(directory, 'c.toml');
  writeFileSync(file, '[content]\nsocket_path = "/from/config.sock"\n');
  await run('status', '--config', file);
  await run('status', '--config', file, '--socket', '/named.sock');
  assert.deepEqual(asked, ['/from/config.sock', '/named.sock']);
});

test('status as JSON has the field names of the proto text', async (t) => {
  const { run } = commandBench(t);
  const { out } = await run('status', '--socket', '/x', '--json');
  const status = JSON.parse(out) as { uptime_seconds: number; swarm: { peers: object[] } };
  assert.equal(status.uptime_seconds, 93_784);
  assert.ok('receive_bytes_per_second' in (status.swarm.peers[0] ?? {}));
});

test('a daemon that is down ends with 69 and one sentence, or one JSON line', async (t) => {
  const { run } = commandBench(t, {
    fetchStatus: () => Promise.reject(new DaemonError('unavailable', 'daemon not running at /x')),
  });
  const args = ['status', '--socket', '/x'];
  assert.deepEqual(await run(...args), {
    code: 69,
    out: '',
    err: 'layerswarm: daemon not running at /x\n',
  });
  const { err } = await run(...args, '--json');
  assert.deepEqual(JSON.parse(err), {
    error: { code: 'unavailable', message: 'daemon not running at /x' },
  });
});

test('watching goes on through a restart of the daemon and ends when interrupted', async (t) => {
  const clock = new FakeClock();
  const stop = new AbortController();
  let calls = 0;
  const { run, printed } = commandBench(t, {
    clock,
    interrupted: () => stop.signal,
    fetchStatus: async () => {
      calls++;
      if (calls === 2) throw new DaemonError('unavailable', 'daemon not running');
      return exampleStatus(calls === 1 ? 'connected' : 'alone');
    },
  });
  const watching = run('status', '--socket', '/x', '--watch');
  await clock.advance(2_500);
  stop.abort();
  const { code } = await watching;
  assert.equal(calls, 3);
  assert.equal(code, 1);
  assert.match(printed.out, /connected[\s\S]*daemon not running[\s\S]*alone/);
  assert.equal(clock.pending, 0);
});

test('an unforeseen failure is one sentence and 70', async (t) => {
  const { run } = commandBench(t, { fetchStatus: () => Promise.reject(new TypeError('x')) });
  const { code, err } = await run('status', '--socket', '/x');
  assert.equal(code, 70);
  assert.match(err, /^layerswarm: unforeseen failure: TypeError: x\n$/);
});

test('config check says ok, or every problem with 78', async (t) => {
  const { run, directory } = commandBench(t);
  const file = join(directory, 'c.toml');
  writeFileSync(file, '[log]\nlevel = "info"\n');
  assert.deepEqual(await run('config', 'check', file), { code: 0, out: `${file}: ok\n`, err: '' });
  writeFileSync(file, '[log]\nlevle = "info"\n');
  const { code, err } = await run('config', 'check', file);
  assert.equal(code, 78);
  assert.match(err, /unknown key \[log\] levle: did you mean level\?\n$/);
  assert.equal((await run('config', 'check', `${file}.no`)).code, 78);
});

test('config show prints what is in force', async (t) => {
  const { run, directory } = commandBench(t, { environment: { LAYERSWARM_LOG_LEVEL: 'debug' } });
  const file = join(directory, 'c.toml');
  writeFileSync(file, '[swarm]\nzone = "z"\n');
  const { out } = await run('config', 'show', '--config', file);
  assert.match(out, /^zone = "z"$/m);
  assert.match(out, /^level = "debug"$/m);
});

test('the daemon is run with the configuration, and not with one whose store is unknown', async (t) => {
  const { run, directory, daemons } = commandBench(t);
  const file = join(directory, 'c.toml');
  writeFileSync(file, '[swarm]\nzone = "z"\n');
  assert.equal((await run('daemon', '--config', file)).code, 0);
  assert.equal(daemons[0]?.config.swarm.zone, 'z');
  writeFileSync(file, 'nonsense');
  assert.equal((await run('daemon', '--config', file)).code, 78);
  assert.equal(daemons.length, 1);
});

test('status finds the daemon of a broken configuration file by what is in force', async (t) => {
  const asked: string[] = [];
  const { run, directory } = commandBench(t, {
    fetchStatus: async (socket) => {
      asked.push(socket);
      return exampleStatus();
    },
  });
  const file = join(directory, 'c.toml');
  writeFileSync(file, '[content]\nsocket_path = "/run/mine.sock"\n[pull]\nlinger = 3\n');
  assert.equal((await run('status', '--config', file)).code, 0);
  assert.deepEqual(asked, ['/run/mine.sock']);
  assert.equal((await run('config', 'check', file)).code, 78);
});

test('keygen prints a key, or writes it for its owner only and never over another one', async (t) => {
  const { run, directory } = commandBench(t);
  const key = `${'ab'.repeat(32)}\n`;
  assert.deepEqual(await run('keygen'), { code: 0, out: key, err: '' });
  const file = join(directory, 'cluster.key');
  const { code, out } = await run('keygen', '--out', file);
  assert.deepEqual([code, out], [0, '']);
  assert.equal(readFileSync(file, 'utf8'), key);
  assert.equal(statSync(file).mode & 0o777, 0o600);
  writeFileSync(file, 'old');
  const refused = await run('keygen', '--out', file);
  assert.equal(refused.code, 73);
  assert.match(refused.err, /--force/);
  assert.equal(readFileSync(file, 'utf8'), 'old');
  assert.equal((await run('keygen', '--out', file, '--force')).code, 0);
  assert.equal(readFileSync(file, 'utf8'), key);
  assert.equal((await run('keygen', '--out', join(directory, 'no', 'where'))).code, 64);
});
