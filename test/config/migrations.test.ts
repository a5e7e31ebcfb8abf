import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import fc from 'fast-check';
import { hasCode } from '../../src/base/errors.ts';
import { runMigrate } from '../../src/cli/migrate-command.ts';
import { parseConfig } from '../../src/config/load.ts';
import { MIGRATIONS, type Migration } from '../../src/config/migrations.ts';
import { SECTIONS } from '../../src/config/schema.ts';
import { migrateConfig } from '../../src/host/config-migration.ts';
import { HostFiles } from '../../src/host/host-files.ts';

/** As if these keys had had other names once. */
const FAKE: readonly Migration[] = [
  { kind: 'renamed', from: ['pull', 'linger'], to: ['pull', 'linger_ms'], since: '0.2.0' },
  { kind: 'renamed', from: ['network', 'zone'], to: ['swarm', 'zone'], since: '0.3.0' },
  {
    kind: 'removed',
    from: ['log', 'colour'],
    why: 'the journal has no colours',
    since: '0.3.0',
  },
];

function problem(work: () => unknown): string {
  try {
    work();
  } catch (error) {
    assert.ok(hasCode(error, 'config_invalid'), String(error));
    return error.message;
  }
  return assert.fail('no error');
}

test('an old key is refused with what became of it and the command that rewrites the file', () => {
  const said = (text: string) => problem(() => parseConfig(text, '/etc/c.toml', {}, FAKE));
  assert.equal(
    said('[pull]\nlinger = 1'),
    '/etc/c.toml: [pull] linger was renamed to [pull] linger_ms in version 0.2.0; run: layerswarm config migrate /etc/c.toml',
  );
  assert.match(said('[network]\nzone = "a"'), /\[network\] zone was renamed to \[swarm\] zone/);
  assert.match(said('[log]\ncolour = true'), /was removed in version 0\.3\.0: the journal has/);
  assert.match(said('[network]\nzones = 1'), /unknown section \[network\]/);
});

const rewrites = [
  {
    id: 'a key in its section, with comments and spaces around it',
    text: '# mine\n[pull]\n# why\n  linger   = 5_000 # short\nbusy_wait_ms = 1\n',
    gives: '# mine\n[pull]\n# why\n  linger_ms   = 5_000 # short\nbusy_wait_ms = 1\n',
  },
  {
    id: 'a key that moves to a section that is there',
    text: '[network]\nzone = "a"\n\n[swarm]\nmax_peers = 3\n',
    gives: '[swarm]\nmax_peers = 3\nzone = "a"\n',
  },
  {
    id: 'a key that moves to a section that is missing',
    text: '[network]\nzone = "a"\n',
    gives: '[swarm]\nzone = "a"\n',
  },
  {
    id: 'a removed key',
    text: '[log]\ncolour = false\nlevel = "info"\n',
    gives: '[log]\nlevel = "info"\n',
  },
  {
    id: 'Windows line ends',
    text: '[pull]\r\nlinger = 1\r\n',
    gives: '[pull]\r\nlinger_ms = 1\r\n',
  },
];

for (const { id, text, gives } of rewrites) {
  test(`a migration rewrites and leaves the rest alone: ${id}`, () => {
    const { text: found } = migrateConfig(text, 'c.toml', FAKE);
    assert.equal(found.trim(), gives.trim());
    assert.deepEqual(migrateConfig(found, 'c.toml', FAKE), { text: found, changes: [] });
  });
}

test('what cannot be migrated is refused with the reason', () => {
  const said = (text: string) => problem(() => migrateConfig(text, 'c.toml', FAKE));
  assert.match(said('[pull]\nlinger = 1\nlinger_ms = 2'), /both are set/);
  assert.match(said('pull = {linger = 1}'), /inline table or has a dotted key/);
  assert.match(said('pull.linger = 1'), /inline table or has a dotted key/);
  assert.match(said('[pull]\nlinger = "long"'), /linger_ms = "long": expected a whole number/);
  assert.match(said('[pull\n'), /^c\.toml:1:\d+: /);
  assert.match(said('[pull]\nlinger = 1\nxyzzy = 1'), /unknown key \[pull\] xyzzy/);
});

test('any good old configuration migrates to what it meant', () => {
  const old = fc.record(
    { linger: fc.integer({ min: 0, max: 1000 }), busy_wait_ms: fc.integer({ min: 0, max: 9 }) },
    { requiredKeys: [] },
  );
  fc.assert(
    fc.property(old, fc.constantFrom('', ' # x'), ({ linger, busy_wait_ms }, comment) => {
      const lines = ['[pull]'];
      if (linger !== undefined) lines.push(`linger = ${linger}${comment}`);
      if (busy_wait_ms !== undefined) lines.push(`busy_wait_ms = ${busy_wait_ms}${comment}`);
      const { text } = migrateConfig(lines.join('\n'), 'c.toml', FAKE);
      const { pull } = parseConfig(text, 'c.toml', {});
      assert.equal(pull.linger_ms, linger ?? parseConfig('', 'c.toml', {}).pull.linger_ms);
    }),
  );
});

test('no migration leads away from a key that still exists, and each leads to one that does', () => {
  const exists = ([section, key]: readonly [string, string]) =>
    Object.hasOwn(SECTIONS, section) &&
    Object.hasOwn(SECTIONS[section as keyof typeof SECTIONS].schema.shape, key);
  for (const migration of MIGRATIONS) {
    assert.ok(!exists(migration.from), `${migration.from.join('.')} still exists`);
    if (migration.kind === 'renamed') assert.ok(exists(migration.to), migration.to.join('.'));
  }
});

function bench(t: TestContext, text: string) {
  const directory = mkdtempSync(join(tmpdir(), 'layerswarm-migrate-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const file = join(directory, 'config.toml');
  writeFileSync(file, text, { mode: 0o640 });
  let out = '';
  const output = { out: (s: string) => void (out += s), err: () => undefined, terminal: false };
  const run = (dry_run: boolean, migrations = FAKE) => {
    out = '';
    const code = runMigrate({ output, files: new HostFiles() }, file, { dry_run, migrations });
    return { code, out };
  };
  return { directory, file, run };
}

test('config migrate rewrites the file once, keeps its mode and the old file beside it', (t) => {
  const { directory, file, run } = bench(t, '[pull]\nlinger = 1\n');
  const dry = run(true);
  assert.match(dry.out, /-linger = 1\n\+linger_ms = 1\n[^]*nothing was written/);
  assert.equal(readFileSync(file, 'utf8'), '[pull]\nlinger = 1\n');
  assert.equal(run(false).code, 0);
  assert.equal(readFileSync(file, 'utf8'), '[pull]\nlinger_ms = 1\n');
  assert.equal(statSync(file).mode & 0o777, 0o640);
  assert.equal(readFileSync(`${file}.before-migration-1`, 'utf8'), '[pull]\nlinger = 1\n');
  assert.match(run(false).out, /: nothing to do\n$/);
  assert.equal(readdirSync(directory).length, 2);
});

test('config migrate leaves a file alone that it cannot migrate', (t) => {
  const { directory, file, run } = bench(t, 'pull.linger = 1\n');
  assert.throws(
    () => run(false),
    (error) => hasCode(error, 'config_invalid'),
  );
  assert.equal(readFileSync(file, 'utf8'), 'pull.linger = 1\n');
  assert.deepEqual(readdirSync(directory), ['config.toml']);
});
