import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync, realpathSync, statSync } from 'node:fs';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { gunzipSync } from 'node:zlib';
import { lintDeb, lintRpm } from '../../packaging/lint.ts';
import { bundledPackages, type Metafile } from '../../packaging/npm-notices.ts';
import {
  buildPackages,
  builtProgram,
  debFiles,
  needTools,
  output,
  type PackedFiles,
  removeTree,
  ROOT,
  rpmFiles,
  scratch,
  unpackDeb,
} from './package-bench.ts';

const HOME = '/usr/lib/layerswarm';
/** Every place the packages may put something. */
const PLACES = [
  /^\/etc\/layerswarm\/config\.toml$/,
  /^\/etc\/ufw\/applications\.d\/layerswarm$/,
  /^\/usr\/bin\/layerswarm$/,
  /^\/usr\/lib\/layerswarm\/(node|main\.js|package\.json|native\/libp2p-quic\.node)$/,
  /^\/usr\/lib\/layerswarm\/[A-Za-z0-9-]+\.js(\.map)?$/,
  /^\/usr\/lib\/layerswarm\/proto\/.*\.proto$/,
  /^\/usr\/lib\/systemd\/system\/layerswarm\.(service|socket)$/,
  /^\/usr\/lib\/sysctl\.d\/50-layerswarm\.conf$/,
  /^\/usr\/lib\/firewalld\/services\/layerswarm\.xml$/,
  /^\/usr\/share\/bash-completion\/completions\/layerswarm$/,
  /^\/usr\/share\/zsh\/(vendor-completions|site-functions)\/_layerswarm$/,
  /^\/usr\/share\/fish\/vendor_completions\.d\/layerswarm\.fish$/,
  /^\/usr\/share\/man\/man(1\/layerswarm\.1|5\/layerswarm\.toml\.5)\.gz$/,
  /^\/usr\/share\/doc\/layerswarm\/(copyright|NOTICES|config\.toml|changelog(\.Debian)?\.gz)$/,
  /^\/usr\/share\/lintian\/overrides\/layerswarm$/,
];
const EXECUTABLE = new Set(['/usr/bin/layerswarm', `${HOME}/node`]);

let directory = '';
let deb = '';
let rpm = '';
let tree = '';

before(() => {
  needTools();
  directory = scratch();
  ({ deb, rpm } = buildPackages(directory));
  tree = unpackDeb(deb, join(directory, 'tree'));
});
after(() => removeTree(directory));

function assertFiles(files: PackedFiles): void {
  for (const [path, { mode, owner }] of files) {
    assert.equal(owner, 'root/root', path);
    if (mode.startsWith('d')) {
      assert.equal(mode, 'drwxr-xr-x', path);
      continue;
    }
    assert.equal(mode, EXECUTABLE.has(path) ? '-rwxr-xr-x' : '-rw-r--r--', path);
    assert.ok(
      PLACES.some((place) => place.test(path)),
      `${path} has no business in the package`,
    );
  }
}

test('the deb has only files of ours, root-owned and with their modes', () => {
  assertFiles(debFiles(deb));
});

test('the rpm has only files of ours, root-owned and with their modes', () => {
  assertFiles(rpmFiles(rpm));
});

test('deb and rpm have the same files, but for what only one of them has a use for', () => {
  const plain = (files: PackedFiles) =>
    [...files]
      .filter(([path, { mode }]) => mode.startsWith('-') && !/lintian|changelog\.Debian/.test(path))
      .map(([path]) => path.replace('vendor-completions', 'site-functions'))
      .sort();
  assert.deepEqual(plain(debFiles(deb)), plain(rpmFiles(rpm)));
});

test('the rpm has the bytes of the deb', () => {
  const said = output('rpm', ['-qp', '--queryformat', '[%{FILEDIGESTS} %{FILENAMES}\\n]', rpm]);
  for (const line of said.trimEnd().split('\n')) {
    const [digest, path = ''] = line.split(' ');
    // A directory has no digest; zsh's file lies elsewhere.
    if (digest === '' || path.endsWith('_layerswarm')) continue;
    const found = createHash('sha256')
      .update(readFileSync(join(tree, path)))
      .digest('hex');
    assert.equal(found, digest, path);
  }
});

test('no path of the machine it was built on is in any file', () => {
  const paths = [
    ROOT,
    realpathSync(join(ROOT, 'node_modules', '..')),
    realpathSync(join(ROOT, 'node_modules')),
    join(tmpdir(), 'layerswarm-'),
    ...(homedir() === '/root' ? [] : [homedir()]),
  ];
  for (const file of filesBelow(tree)) {
    const bytes = readFileSync(file);
    for (const path of paths) assert.equal(bytes.indexOf(path), -1, `${file} names ${path}`);
  }
});

test('the installed program runs from where it was unpacked, with its own Node', () => {
  const run = (...args: string[]) =>
    output(join(tree, HOME, 'node'), [join(tree, HOME, 'main.js'), ...args]);
  const { version } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as {
    version: string;
  };
  assert.equal(run('--version').trim(), version);
  assert.match(run('config', 'check', join(tree, 'etc/layerswarm/config.toml')), /: ok$/m);
  assert.match(run('config', 'check', join(tree, 'usr/share/doc/layerswarm/config.toml')), /ok/);
});

test('the native part of QUIC loads in the packaged Node', () => {
  const addon = join(tree, HOME, 'native/libp2p-quic.node');
  const script = `process.stdout.write(Object.keys(require(${JSON.stringify(addon)})).join())`;
  assert.match(output(join(tree, HOME, 'node'), ['-e', script]), /QuinnConfig/);
});

test('the packaged Node is stripped and asks for no newer libraries than the package says', () => {
  const symbols = output('objdump', ['-T', join(tree, HOME, 'node')]);
  for (const [name, newest] of [
    ['GLIBC', '2.28'],
    ['GLIBCXX', '3.4.21'],
  ] as const) {
    const found = [...symbols.matchAll(new RegExp(`\\(?${name}_([0-9.]+)`, 'g'))].map((m) => m[1]!);
    const worst = found.sort((a, b) => a.localeCompare(b, 'en', { numeric: true })).at(-1);
    assert.equal(worst, newest);
  }
  assert.doesNotMatch(output('readelf', ['-SW', join(tree, HOME, 'node')]), /\.symtab/);
});

test('every part that others wrote stands in NOTICES with its licence', () => {
  const notices = readFileSync(join(tree, 'usr/share/doc/layerswarm/NOTICES'), 'utf8');
  const meta = JSON.parse(readFileSync(join(builtProgram(), 'meta.json'), 'utf8')) as Metafile;
  const packages = bundledPackages(meta);
  assert.ok(packages.length > 50, 'the bundle has libp2p in it');
  for (const at of packages) {
    const name = at.replace(/^.*node_modules\//, '');
    assert.match(notices, new RegExp(`^${name.replaceAll('.', '\\.')} \\d[^\\n]*\\(`, 'm'), name);
  }
  for (const name of ['quinn', 'rustls', 'ring', 'tokio', 'napi']) {
    assert.match(notices, new RegExp(`^${name} \\d+\\.\\d+\\.\\d+ \\(`, 'm'), name);
  }
  assert.match(notices, /Node\.js 24\.\d+\.\d+ and what it contains/);
  for (const words of ['Apache License', 'Permission is hereby granted', 'UNICODE', 'OpenSSL']) {
    assert.ok(notices.includes(words) || notices.toUpperCase().includes(words), words);
  }
});

test('the deb names its configuration files, and its checksums are right', () => {
  const control = join(directory, 'control');
  output('dpkg-deb', ['--control', deb, control]);
  assert.equal(
    readFileSync(join(control, 'conffiles'), 'utf8'),
    '/etc/layerswarm/config.toml\n/etc/ufw/applications.d/layerswarm\n',
  );
  execFileSync('md5sum', ['--quiet', '--check', join(control, 'md5sums')], { cwd: tree });
  for (const script of ['postinst', 'prerm', 'postrm']) {
    assert.equal(statSync(join(control, script)).mode & 0o777, 0o755);
  }
  const fields = readFileSync(join(control, 'control'), 'utf8');
  assert.match(fields, /^Depends: libc6 \(>= 2\.28\), libgcc-s1, libstdc\+\+6 .*systemd$/m);
  assert.match(fields, /^Recommends: isal, pigz, containerd \| containerd\.io$/m);
});

test('the rpm keeps changed configuration, and recommends what makes unpacking fast', () => {
  const config = output('rpm', ['-qp', '--configfiles', rpm]).trimEnd().split('\n');
  assert.deepEqual(config, ['/etc/layerswarm/config.toml', '/etc/ufw/applications.d/layerswarm']);
  assert.match(output('rpm', ['-qp', '--recommends', rpm]), /isa-l[^]*pigz/);
  assert.match(output('rpm', ['-qp', '--requires', rpm]), /libc\.so\.6\(GLIBC_2\.28\)/);
});

test('manuals and changelog are packed and say what they are', () => {
  const text = (path: string) => gunzipSync(readFileSync(join(tree, path))).toString('utf8');
  assert.match(text('/usr/share/man/man1/layerswarm.1.gz'), /^\.Dt LAYERSWARM 1$/m);
  assert.match(text('/usr/share/man/man5/layerswarm.toml.5.gz'), /^\.Dt LAYERSWARM\.TOML 5$/m);
  assert.match(text('/usr/share/doc/layerswarm/changelog.gz'), /^# Changelog/);
});

test('lintian has nothing to say that is not overridden with a reason', () => {
  lintDeb(deb);
  const overrides = readFileSync(join(ROOT, 'packaging/host/lintian-overrides'), 'utf8');
  assertReasons(overrides, /^layerswarm: /);
});

test('rpmlint has nothing to say that is not excepted with a reason', () => {
  lintRpm(ROOT, rpm);
  assertReasons(readFileSync(join(ROOT, 'packaging/rpmlint.toml'), 'utf8'), /^ {2}"/);
});

/** An exception stands below a comment, or below another exception for the same reason. */
function assertReasons(text: string, exception: RegExp): void {
  let reason = false;
  for (const line of text.split('\n')) {
    if (/^\s*#/.test(line)) reason = true;
    else if (exception.test(line)) assert.ok(reason, `no reason for: ${line}`);
    else if (!line.startsWith('Filters')) reason = false;
  }
}

function filesBelow(at: string): string[] {
  return readdirSync(at, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name));
}
