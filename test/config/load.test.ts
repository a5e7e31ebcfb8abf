import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { DaemonError, hasCode } from '../../src/base/errors.ts';
import { loadConfig, parseConfig } from '../../src/config/load.ts';
import {
  keyReferences,
  renderConfig,
  renderReference,
  tomlValue,
} from '../../src/config/reference.ts';

const parse = (text: string, env = {}) => parseConfig(text, 'c.toml', env);

function problem(text: string, env = {}): string {
  try {
    parse(text, env);
  } catch (error) {
    assert.ok(hasCode(error, 'config_invalid'), String(error));
    return error.message;
  }
  return assert.fail(`no error for ${text}`);
}

const mistakes = [
  {
    id: 'typo',
    text: '[store]\ncache_max_byte = 1',
    says: 'c.toml: unknown key [store] cache_max_byte: did you mean cache_max_bytes?',
  },
  { id: 'stem', text: '[store]\ncache_max = 1', says: 'did you mean cache_max_bytes?' },
  {
    id: 'other section',
    text: '[pull]\nzone = "a"',
    says: 'unknown key [pull] zone: it belongs under [swarm]',
  },
  {
    id: 'no section',
    text: 'zone = "a"',
    says: 'zone stands outside of any section: it belongs under [swarm]',
  },
  {
    id: 'section typo',
    text: '[sworm]\nzone = "a"',
    says: 'unknown section [sworm]: did you mean [swarm]?',
  },
  { id: 'section as value', text: 'swarm = 3', says: 'swarm = 3: expected a section [swarm]' },
  { id: 'unlike anything', text: '[log]\nxyzzy = 1', says: 'c.toml: unknown key [log] xyzzy' },
  {
    id: 'wrong type',
    text: '[swarm]\nmax_peers = "many"',
    says: '[swarm] max_peers = "many": expected a whole number from 1 to 1000',
  },
  {
    id: 'out of bounds',
    text: '[swarm]\nlisten_port = 70000',
    says: '[swarm] listen_port = 70_000: expected a port from 0 to 65535',
  },
  {
    id: 'fraction',
    text: '[pull]\nlinger_ms = 1.5',
    says: '[pull] linger_ms = 1.5: expected a whole number of milliseconds',
  },
  {
    id: 'not of the list',
    text: '[content]\nserver = "h3"',
    says: 'expected one of "h2", "grpc-js"',
  },
  { id: 'twice the same', text: '[swarm]\ntransports = ["tcp", "tcp"]', says: 'each once' },
  {
    id: 'relative path',
    text: '[store]\nstate_directory = "state"',
    says: '[store] state_directory = "state": expected an absolute path',
  },
  {
    id: 'long socket path',
    text: `[content]\nsocket_path = "/${'x'.repeat(107)}"`,
    says: 'at most 107 bytes',
  },
  {
    id: 'bootstrap without port',
    text: '[swarm]\nbootstrap = ["node1"]',
    says: '"host:port" or multiaddrs',
  },
  {
    id: 'remote metrics',
    text: '[metrics]\nlisten = "0.0.0.0:9479"',
    says: 'expected a loopback address, because allow_remote is false',
  },
  {
    id: 'bad address',
    text: '[metrics]\nlisten = "9479"',
    says: '[metrics] listen = "9479": expected "address:port"',
  },
  { id: 'syntax', text: '[log]\nlevel = warn', says: 'c.toml:2:9: ' },
];

for (const { id, text, says } of mistakes) {
  test(`a configuration mistake is named with key, value and expectation: ${id}`, () => {
    const message = problem(text);
    assert.ok(message.includes(says), message);
  });
}

test('several problems are told at once', () => {
  const message = problem('[log]\nlevel = "loud"\nlevle = 1\n[swarm]\nmax_peers = 0\n[nope]\n');
  assert.match(message, /^c\.toml has 4 problems:\n {2}unknown section \[nope\]/);
  assert.match(message, /levle: did you mean level\?/);
  assert.match(message, /\[swarm\] max_peers = 0/);
});

test('an empty file gives the defaults, frozen through and through', () => {
  const config = parse('');
  assert.equal(config.content.socket_path, '/run/layerswarm/layerswarm.sock');
  assert.equal(config.store.work_directory, `${config.store.content_directory}/.layerswarm`);
  assert.equal(config.log.level, 'warn');
  assert.throws(() => Object.assign(config.swarm, { zone: 'b' }), TypeError);
  assert.throws(() => (config.swarm.bootstrap as string[]).push('a:1'), TypeError);
});

test('loopback and allowed remote metrics addresses are accepted', () => {
  for (const listen of ['127.0.0.1:0', '[::1]:9479', 'localhost:1', '']) {
    assert.equal(parse(`[metrics]\nlisten = "${listen}"`).metrics.listen, listen);
  }
  parse('[metrics]\nlisten = "0.0.0.0:9479"\nallow_remote = true');
});

test('the environment overrides the log level and nothing else', () => {
  const env = { LAYERSWARM_LOG_LEVEL: 'debug', LAYERSWARM_SWARM_ZONE: 'x' };
  assert.equal(parse('[log]\nlevel = "error"', env).log.level, 'debug');
  assert.equal(parse('', env).swarm.zone, '');
  assert.match(
    problem('', { LAYERSWARM_LOG_LEVEL: 'loud' }),
    /^c\.toml: LAYERSWARM_LOG_LEVEL = "loud": expected one of/,
  );
});

test('a file that is missing is an error, unless it may be', (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'layerswarm-config-'));
  t.after(() => rmSync(dir, { recursive: true }));
  const file = join(dir, 'config.toml');
  assert.throws(
    () => loadConfig(file, {}),
    (e) => hasCode(e, 'config_invalid') && e.message.includes('ENOENT'),
  );
  assert.equal(loadConfig(file, {}, { optional: true }).log.level, 'warn');
  writeFileSync(file, '[log]\nlevel = "info"\n');
  assert.equal(loadConfig(file, {}).log.level, 'info');
});

test('the packaged configuration documents every key with its default', () => {
  const packaged = readFileSync(new URL('../../packaging/config.toml', import.meta.url), 'utf8');
  assert.equal(
    packaged,
    renderReference(),
    'run: npm run build, or write renderReference() to packaging/config.toml',
  );
  assert.deepEqual(parse(packaged), parse(''));
  // With every "#" before a key deleted it still is the default configuration.
  assert.deepEqual(parse(packaged.replace(/^#(?=[a-z_]+ = )/gm, '')), parse(''));
  for (const k of keyReferences()) assert.match(k.doc, /\.$/, k.key);
});

test('the manual names every key with its default', () => {
  const file = new URL('../../packaging/man/layerswarm.toml.5', import.meta.url);
  const manual = readFileSync(file, 'utf8').replaceAll('\\(dq', '"').split('\n');
  for (const k of keyReferences()) {
    assert.ok(manual.includes(`.It Va ${k.key} No = ${tomlValue(k.default)}`), k.key);
  }
});

test('a shown configuration loads to the same configuration', () => {
  const config = parse(
    '[swarm]\nbootstrap = ["a:1", "[::1]:2"]\nzone = "z-1"\n[pull]\nlinger_ms = 12_345',
  );
  assert.deepEqual(parse(renderConfig(config)), config);
});

test('no text makes the loader fail in another way than config_invalid', () => {
  const line = fc.oneof(
    fc.constantFrom(
      '[store]',
      '[swarm]',
      '[log]',
      'level = 1',
      'zone = []',
      'bootstrap = [1, {a = 2}]',
      'x = 1979-05-27',
    ),
    fc.string(),
  );
  fc.assert(
    fc.property(fc.array(line, { maxLength: 6 }), (lines) => {
      try {
        parse(lines.join('\n'));
      } catch (error) {
        assert.ok(error instanceof DaemonError && error.code === 'config_invalid', String(error));
      }
    }),
  );
});
