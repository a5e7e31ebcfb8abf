import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { parseOptions } from '../../packaging/options.ts';
import {
  buildPackages,
  needTools,
  output,
  removeTree,
  scratch,
  unpackDeb,
} from './package-bench.ts';

let directory = '';

before(() => {
  needTools();
  directory = scratch();
});
after(() => removeTree(directory));

const sha256 = (file: string): string =>
  createHash('sha256').update(readFileSync(file)).digest('hex');

test('the same input gives the same bytes, from another directory, with another mask, zone and language', () => {
  const elsewhere = join(directory, 'elsewhere');
  mkdirSync(elsewhere);
  const first = buildPackages(join(directory, 'first'));
  const second = buildPackages(join(directory, 'second'), {
    cwd: elsewhere,
    umask: '077',
    env: { TZ: 'Asia/Kathmandu', LANG: 'de_DE.UTF-8', LC_ALL: 'C.UTF-8' },
  });
  assert.equal(sha256(second.deb), sha256(first.deb));
  assert.equal(sha256(second.rpm), sha256(first.rpm));
});

test('the build prints the size of each package', () => {
  const { said } = buildPackages(join(directory, 'sizes'), { more: ['--format', 'deb'] });
  assert.match(said, /installed, amd64 +\d+\.\d MB/);
  assert.match(said, /layerswarm_[\d.]+-1_amd64\.deb +\d+\.\d MB/);
});

test('another version is a package of that version with a program that says so', () => {
  const { deb } = buildPackages(join(directory, 'next'), {
    more: ['--version', '9.8.7', '--format', 'deb'],
  });
  assert.equal(output('dpkg-deb', ['--field', deb, 'Version']).trim(), '9.8.7-1');
  const home = join(unpackDeb(deb, join(directory, 'next-tree')), 'usr/lib/layerswarm');
  assert.equal(output(join(home, 'node'), [join(home, 'main.js'), '--version']).trim(), '9.8.7');
});

test('arm64 is packaged on this machine, with programs for arm64 only', () => {
  const { deb, rpm } = buildPackages(join(directory, 'arm64'), { architecture: 'arm64' });
  assert.equal(output('dpkg-deb', ['--field', deb, 'Architecture']).trim(), 'arm64');
  assert.equal(output('rpm', ['-qp', '--queryformat', '%{ARCH}', rpm]), 'aarch64');
  const tree = unpackDeb(deb, join(directory, 'arm64-tree'));
  const home = join(tree, 'usr/lib/layerswarm');
  // e_machine of an ELF header: 183 is AArch64.
  assert.equal(readFileSync(join(home, 'node')).readUInt16LE(18), 183);
  const config = readFileSync(join(tree, 'etc/layerswarm/config.toml'), 'utf8');
  const addon = output('find', [home, '-name', '*.node']).trim();
  if (addon === '') assert.match(config, /^transports = \["tcp"\]$/m);
  else assert.equal(readFileSync(addon).readUInt16LE(18), 183);
});

test('a mistyped option of the build is named', () => {
  assert.throws(() => parseOptions(['--arch', 'x86']), /--arch x86: expected amd64, arm64, all/);
  assert.throws(() => parseOptions(['--format', 'apk']), /--format apk: expected deb or rpm/);
  assert.throws(() => parseOptions(['--version', '1.0-rc1']), /--version 1\.0-rc1/);
  assert.throws(() => parseOptions(['--fats']), /--fats/);
  assert.deepEqual(parseOptions([]).architectures, ['amd64', 'arm64']);
});
