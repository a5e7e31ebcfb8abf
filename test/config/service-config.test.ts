import assert from 'node:assert/strict';
import {
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import fc from 'fast-check';
import { DaemonError, hasCode } from '../../src/base/errors.ts';
import { keepLastGood } from '../../src/config/last-good.ts';
import { salvage } from '../../src/config/salvage.ts';
import type { Migration } from '../../src/config/migrations.ts';
import { loadServiceConfig } from '../../src/config/service-config.ts';

/** A configuration file and a state directory of its own. */
function bench(t: TestContext) {
  const directory = mkdtempSync(join(tmpdir(), 'layerswarm-service-config-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const file = join(directory, 'config.toml');
  const state = join(directory, 'state');
  const systemd = join(directory, 'systemd');
  const good = `[store]\nstate_directory = "${state}"\n[swarm]\nzone = "good"\n[content]\nsocket_path = "/run/mine.sock"\n`;
  const write = (text: string): void => writeFileSync(file, text);
  const load = (env = {}, options = {}) => loadServiceConfig(file, env, options);
  const refused = (env = {}, options = {}): string => {
    try {
      load(env, options);
    } catch (error) {
      assert.ok(hasCode(error, 'config_invalid'), String(error));
      return error.message;
    }
    return assert.fail('it was loaded');
  };
  return { directory, file, state, systemd, good, write, load, refused };
}

test('a file that is right serves as written, and is kept for its owner only', async (t) => {
  const { good, write, load, state } = bench(t);
  write(good);
  const loaded = load();
  assert.deepEqual([loaded.served, loaded.problems, loaded.lost], ['file', [], []]);
  await loaded.keep();
  await loaded.keep();
  assert.deepEqual(readdirSync(state), ['last-good-config.toml']);
  const kept = join(state, 'last-good-config.toml');
  assert.equal(statSync(kept).mode & 0o777, 0o600);
  assert.ok(readFileSync(kept, 'utf8').endsWith(good));
});

const breakages = [
  { id: 'a typo', text: (good: string) => good.replace('zone', 'zoone') },
  {
    id: 'a wrong value in the store',
    text: (good: string) => `${good}[pull]\nlinger_ms = "soon"\n`,
  },
  { id: 'no TOML', text: (good: string) => good.replace('[swarm]', '[swarm') },
  {
    id: 'a broken store',
    text: (good: string) => good.replace('[store]', '[store]\nstaged_max = 0'),
  },
];

for (const { id, text } of breakages) {
  test(`a file that is broken costs nothing while the one that served last is known: ${id}`, async (t) => {
    const { good, write, load } = bench(t);
    write(good);
    await load().keep();
    write(text(good));
    const loaded = load();
    assert.equal(loaded.served, 'last_good');
    assert.ok(loaded.problems.length > 0);
    assert.equal(loaded.config.swarm.zone, 'good');
    assert.equal(loaded.config.content.socket_path, '/run/mine.sock');
  });
}

test('a broken file never replaces the one that served last', async (t) => {
  const { good, write, load, state } = bench(t);
  write(good);
  await load().keep();
  write(good.replace('zone', 'zoone'));
  await load().keep();
  assert.ok(readFileSync(join(state, 'last-good-config.toml'), 'utf8').includes('zone = "good"'));
});

test('what served last is found in the state directory of systemd, whatever the broken file says', async (t) => {
  const { good, write, load, systemd, refused } = bench(t);
  write(good);
  await load({ STATE_DIRECTORY: `${systemd}:/other` }).keep();
  write('[store]\nstate_directory = 3\n');
  assert.match(refused(), /state_directory = 3/);
  assert.equal(load({ STATE_DIRECTORY: systemd }).config.swarm.zone, 'good');
});

test('of two that served, the later one is in force', async (t) => {
  const { good, write, load, systemd, state } = bench(t);
  const env = { STATE_DIRECTORY: systemd };
  write(good);
  await load(env).keep();
  write(good.replace('"good"', '"later"'));
  await load(env).keep();
  writeFileSync(
    join(state, 'last-good-config.toml'),
    readFileSync(join(systemd, 'last-good-config.toml'), 'utf8').replace('later', 'older'),
  );
  utimesSync(join(state, 'last-good-config.toml'), 1, 1);
  write(`${good}nonsense`);
  assert.equal(load(env).config.swarm.zone, 'later');
});

test('what served for one file is not used for another', async (t) => {
  const { good, write, load, directory, state, refused, file } = bench(t);
  write(good);
  await load().keep();
  const other = join(directory, 'other.toml');
  writeFileSync(other, `[store]\nstate_directory = "${state}"\nstaged_max = 0\n`);
  assert.throws(
    () => loadServiceConfig(other, {}),
    (e) => hasCode(e, 'config_invalid') && e.message.includes('staged_max'),
  );
  rmSync(file);
  assert.match(refused(), /ENOENT/);
});

test('a file that went away is missed when it served before, and is no problem when there never was one', async (t) => {
  const { good, write, load, systemd, file, refused } = bench(t);
  const env = { STATE_DIRECTORY: systemd };
  assert.match(refused(), /ENOENT/);
  const absent = load(env, { optional: true });
  assert.deepEqual([absent.served, absent.problems], ['file', []]);
  write(good);
  await load(env).keep();
  rmSync(file);
  const loaded = load(env, { optional: true });
  assert.equal(loaded.served, 'last_good');
  assert.match(loaded.problems.join(), /ENOENT/);
});

test('a file that cannot be read is a problem like any other', async (t) => {
  const { good, write, load, systemd, file } = bench(t);
  const env = { STATE_DIRECTORY: systemd };
  write(good);
  await load(env).keep();
  rmSync(file);
  await mkdir(file);
  assert.deepEqual([load(env).served, load(env).config.swarm.zone], ['last_good', 'good']);
});

test('a log level of the environment that does not exist is told, and the file serves', (t) => {
  const { good, write, load } = bench(t);
  write(good);
  const { served, problems, config } = load({ LAYERSWARM_LOG_LEVEL: 'loud' });
  assert.equal(served, 'file');
  assert.match(problems.join(), /LAYERSWARM_LOG_LEVEL = "loud"/);
  assert.equal(config.log.level, 'warn');
});

/** As if an upgrade had given the keys that nothing can be served without other names. */
const UPGRADE: readonly Migration[] = [
  { kind: 'renamed', from: ['store', 'state'], to: ['store', 'state_dir'], since: '0.2.0' },
  { kind: 'renamed', from: ['door', 'socket'], to: ['content', 'socket_path'], since: '0.2.0' },
  {
    kind: 'renamed',
    from: ['store', 'state_dir'],
    to: ['store', 'state_directory'],
    since: '0.3.0',
  },
  { kind: 'removed', from: ['content', 'colour'], why: 'nobody looked', since: '0.3.0' },
];

for (const { id, begin } of [
  { id: 'renamed and removed in [store] and [content]', begin: '' },
  { id: 'and the file is broken besides', begin: 'nonsense\n' },
])
  test(`after an upgrade a file with old keys costs nothing, as what served last had them too: ${id}`, async (t) => {
    const { write, load, state, file } = bench(t);
    const old = `[store]\nstate = "${state}"\nstaged_max = 5\n[content]\ncolour = true\n[door]\nsocket = "/run/mine.sock"\n`;
    // What the older version kept.
    await keepLastGood([state], file, old);
    write(begin + old);
    const { served, problems, config } = load({}, { migrations: UPGRADE });
    assert.equal(served, 'last_good');
    assert.ok(problems.length > 0);
    if (begin === '')
      assert.match(problems.join(), /state_dir in version 0\.2\.0; run: layerswarm config migrate/);
    assert.deepEqual(
      [config.store.state_directory, config.store.staged_max, config.content.socket_path],
      [state, 5, '/run/mine.sock'],
    );
  });

test('what served last with an old key and the new one beside it says two things, and is not used', async (t) => {
  const { write, load, state, file } = bench(t);
  const both = `[store]\nstate_directory = "${state}"\n[door]\nsocket = "/a"\n[content]\nsocket_path = "/b"\n`;
  await keepLastGood([state], file, both);
  write(`${both}staged_max = 0\n`);
  assert.throws(
    () => load({}, { migrations: UPGRADE }),
    (error) => hasCode(error, 'config_invalid'),
  );
});

const parts = [
  { id: 'a typo', text: '[swarm]\nzoone = "a"\n[pull]\nlinger_ms = 7', lost: ['swarm'] },
  { id: 'a wrong value', text: '[pull]\nlinger_ms = 7\n[log]\nlevel = 3', lost: ['log'] },
  {
    id: 'broken TOML in one section',
    text: '[pull]\nlinger_ms = 7\n[log]\nlevel = warn',
    lost: ['log'],
  },
  { id: 'a broken header', text: '[pull]\nlinger_ms = 7\n[swarm\nzone = "a"', lost: ['swarm'] },
  { id: 'a section that stands twice', text: '[pull]\nlinger_ms = 7\n[log]\n[log]', lost: ['log'] },
  { id: 'an unknown section', text: '[pull]\nlinger_ms = 7\n[nope]\nx = 1', lost: [] },
  {
    id: 'an endless text',
    text: '[pull]\nlinger_ms = 7\n[swarm]\nzone = """a\n[log]\n',
    lost: ['swarm'],
  },
  {
    id: 'Windows line ends',
    text: '[pull]\r\nlinger_ms = 7\r\n[log]\r\nlevel = warn\r\n',
    lost: ['log'],
  },
  { id: 'an old key', text: '[pull]\nlinger_ms = 7\n[log]\nlevels = 1', lost: ['log'] },
];

for (const { id, text, lost } of parts) {
  test(`where nothing served before, a broken section costs only itself: ${id}`, (t) => {
    const { write, load } = bench(t);
    write(`[store]\nstaged_max = 5\n${text}`);
    const loaded = load();
    assert.deepEqual([loaded.served, loaded.lost], ['sections', lost]);
    assert.equal(loaded.config.store.staged_max, 5);
    assert.equal(loaded.config.pull.linger_ms, 7);
    assert.equal(loaded.config.swarm.enabled, !lost.includes('swarm'));
    assert.ok(loaded.problems.length > 0);
  });
}

test('a metrics address that other hosts reach is not listened on because something else is wrong', (t) => {
  const { write, load } = bench(t);
  write('[metrics]\nlisten = "0.0.0.0:9479"\n');
  assert.equal(load().config.metrics.listen, '127.0.0.1:9479');
  write('[metrics]\nlisten = "0.0.0.0:9479"\nallow_remote = "yes"\n');
  assert.equal(load().config.metrics.listen, '127.0.0.1:9479');
});

test('a limit of uploads that cannot be read turns the swarm off', (t) => {
  const { write, load } = bench(t);
  write('[swarm]\nmax_upload_bytes_per_second = "1MB"\n');
  assert.equal(load().config.swarm.enabled, false);
});

const doubts = [
  { id: 'a wrong value', text: '[store]\nstaged_max = 0' },
  { id: 'broken TOML', text: '[content]\nsocket_path = /run/x.sock\n[log]' },
  { id: 'a broken header', text: '[store\nstaged_max = 5\n[log]' },
  { id: 'a header without its beginning', text: '[log]\nlevel = "info"\nstore]\nstaged_max = 5' },
  { id: 'a mistyped header', text: '[stroe]\nstaged_max = 5\n[log]' },
  { id: 'a key before any header', text: 'content_directory = "/data"\n[log]' },
  { id: 'a place in another section', text: '[swarm]\ncontent_directory = "/data"' },
  { id: 'a section that stands twice', text: '[store]\nstaged_max = 5\n[store]\nstaged_max = 6' },
  { id: 'not a table', text: 'store = 3' },
  { id: "another program's page", text: '<html>\n<h1>502 Bad Gateway</h1>' },
];

for (const { id, text } of doubts) {
  test(`where nothing served before, a store or a socket in doubt is not guessed: ${id}`, (t) => {
    const { write, refused, file } = bench(t);
    write(text);
    assert.ok(refused().includes(file));
  });
}

test('no text makes the salvage fail, take another store than the text says, or open what was closed', () => {
  const line = fc.oneof(
    fc.constantFrom(
      '[store]',
      '[swarm]',
      '[swarm',
      'metrics]',
      '[metrics]',
      '"""',
      'zone = [',
      ']',
    ),
    fc.constantFrom('staged_max = 5', 'staged_max = 0', 'listen = "0.0.0.0:1"', 'enabled = false'),
    fc.string(),
  );
  fc.assert(
    fc.property(fc.array(line, { maxLength: 8 }), (lines) => {
      try {
        const found = salvage(lines.join('\n'), 'c.toml', {});
        if (found === undefined) return;
        assert.ok(!found.config.metrics.listen.startsWith('0.0.0.0'));
        assert.ok(!found.lost.some((name) => name === 'store' || name === 'content'));
      } catch (error) {
        assert.ok(!(error instanceof DaemonError), String(error));
        throw error;
      }
    }),
  );
});
