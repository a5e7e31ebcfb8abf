import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { checkCrates, chosenLicences, crateNotices } from '../../packaging/crate-notices.ts';
import { bundledPackages, npmNotice } from '../../packaging/npm-notices.ts';
import { renderNotices } from '../../packaging/notices.ts';
import { ROOT } from './package-bench.ts';

function checkout(t: TestContext): string {
  const root = mkdtempSync(join(tmpdir(), 'layerswarm-notices-'));
  t.after(() => rmSync(root, { recursive: true }));
  return root;
}

function addPackage(
  root: string,
  about: object,
  files: Readonly<Record<string, string>> = {},
): void {
  const at = join(root, 'node_modules/left-out');
  mkdirSync(at, { recursive: true });
  const common = { name: 'left-out', version: '1.2.3' };
  writeFileSync(join(at, 'package.json'), JSON.stringify({ ...common, ...about }));
  for (const [name, text] of Object.entries(files)) writeFileSync(join(at, name), text);
}

test('packages are found by what went into the bundle, nested and scoped ones too', () => {
  const inputs = {
    'src/main.ts': {},
    'node_modules/pino/lib/tools.js': {},
    'node_modules/pino/pino.js': {},
    '../other/node_modules/@a/b/node_modules/@c/d/index.js': {},
  };
  assert.deepEqual(bundledPackages({ inputs }), [
    '../other/node_modules/@a/b/node_modules/@c/d',
    'node_modules/pino',
  ]);
});

test('a bundled package without a licence text stops the build, which names it', (t) => {
  const root = checkout(t);
  addPackage(root, { license: 'MIT', author: 'Somebody' }, { 'README.md': 'MIT' });
  assert.throws(() => npmNotice(root, 'node_modules/left-out'), /left-out 1\.2\.3 .* no licence/);
  addPackage(root, {});
  assert.throws(() => npmNotice(root, 'node_modules/left-out'), /it says "unknown"/);
});

for (const { id, name } of [
  { id: 'LICENSE', name: 'LICENSE' },
  { id: 'British spelling', name: 'licence.md' },
  { id: 'by name of the licence', name: 'LICENSE-MIT' },
  { id: 'COPYING', name: 'COPYING.txt' },
]) {
  test(`a licence file is found: ${id}`, (t) => {
    const root = checkout(t);
    addPackage(root, { license: 'MIT' }, { [name]: 'the words' });
    assert.equal(npmNotice(root, 'node_modules/left-out').text, 'the words');
  });
}

test('a package that offers the Apache License may come without its text, because ours is the same', (t) => {
  const root = checkout(t);
  for (const license of ['Apache-2.0', 'Apache-2.0 OR MIT', '(MIT OR Apache-2.0)']) {
    addPackage(root, { license, author: { name: 'Somebody' } });
    const notice = npmNotice(root, 'node_modules/left-out');
    assert.deepEqual(notice.standard_texts, ['Apache-2.0'], license);
    assert.deepEqual(notice.preface, ['Author: Somebody']);
  }
  addPackage(root, { license: 'Apache-2.0 AND MIT' });
  assert.throws(() => npmNotice(root, 'node_modules/left-out'), /no licence text/);
});

test('of the licences a crate offers one is chosen, of those it demands all are kept', () => {
  assert.deepEqual(chosenLicences('MIT OR Apache-2.0'), ['Apache-2.0']);
  assert.deepEqual(chosenLicences('Unlicense OR MIT'), ['MIT']);
  assert.deepEqual(chosenLicences('Apache-2.0 AND ISC'), ['Apache-2.0', 'ISC']);
  assert.deepEqual(chosenLicences('(MIT OR Apache-2.0) AND Unicode-3.0'), [
    'Apache-2.0',
    'Unicode-3.0',
  ]);
  assert.throws(() => chosenLicences('GPL-3.0-only'), /no text for the licence "GPL-3\.0-only"/);
});

test('a crate without a licence text stops the build, which names it', (t) => {
  const table = join(checkout(t), 'crates.json');
  const crate = { name: 'odd', version: '0.1.0', licence: 'Odd-1.0', copyright: [] };
  writeFileSync(table, JSON.stringify([crate]));
  assert.throws(() => crateNotices(table), /crate odd 0\.1\.0 has no licence text/);
});

test('an addon with a crate that the table lacks stops the build, which names it', (t) => {
  const root = checkout(t);
  const [table, addon] = [join(root, 'crates.json'), join(root, 'a.node')];
  writeFileSync(table, '[{"name": "quinn", "version": "0.11.9"}]');
  writeFileSync(addon, '\0/r/registry/src/index-1/quinn-0.11.9/src/lib.rs\0');
  checkCrates(table, addon);
  writeFileSync(addon, '\0/r/registry/src/index-1/quinn-udp-0.5.14/src/lib.rs\0');
  assert.throws(() => checkCrates(table, addon), /lacks crates of .*: quinn-udp-0\.5\.14/);
  writeFileSync(addon, 'no crate');
  assert.throws(() => checkCrates(table, addon), /names no crate at all/);
});

test('every crate of the table has a version, a licence with a text, and words of its authors', () => {
  const table = join(ROOT, 'packaging/quic-crates.json');
  const notices = crateNotices(table);
  assert.ok(notices.length > 150);
  for (const { name, version, preface } of notices) {
    assert.ok(version !== '' && preface.length > 0, name);
  }
});

test('equal notices stand once, with all versions', (t) => {
  const root = checkout(t);
  const at = (path: string, version: string) => {
    mkdirSync(join(root, path), { recursive: true });
    const about = { name: 'twice', version, license: 'MIT' };
    writeFileSync(join(root, path, 'package.json'), JSON.stringify(about));
    writeFileSync(join(root, path, 'LICENSE'), 'words of twice');
  };
  at('node_modules/twice', '1.0.0');
  at('node_modules/other/node_modules/twice', '2.0.0');
  writeFileSync(join(root, 'node-licence'), 'words of Node');
  const text = renderNotices({
    root,
    metafile: {
      inputs: {
        'node_modules/twice/a.js': {},
        'node_modules/other/node_modules/twice/a.js': {},
      },
    },
    node: { version: '24.0.0', licence: join(root, 'node-licence') },
    addon: undefined,
  });
  assert.equal(text.split('words of twice').length, 2);
  assert.match(text, /^twice 1\.0\.0, 2\.0\.0 \(MIT\)$/m);
  assert.match(text, /words of Node/);
  assert.ok(!readFileSync(join(ROOT, 'LICENSE'), 'utf8').includes('words of'));
});
