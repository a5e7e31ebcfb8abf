// Packages of this checkout, unpacked and listed, for the tests of what is in them.
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { type Architecture, TARGETS } from '../../packaging/architecture.ts';
import { ensureBuildTools, ensurePrograms } from '../../packaging/build-tools.ts';

export const ROOT = resolve(import.meta.dirname, '../..');

/** The slowest part, the first download of another architecture's Node, took 20 s. */
const DEADLINE_MS = 10 * 60_000;

/** A file as the package has it. */
export type PackedFile = { readonly mode: string; readonly owner: string };

export type PackedFiles = ReadonlyMap<string, PackedFile>;

/** Programs of these tests beyond those of the build, and the Debian packages that bring them. */
const TEST_PROGRAMS = new Map([
  ['objdump', 'binutils'],
  ['rpm', 'rpm'],
  ['dash', 'dash'],
  ['bash', 'bash'],
  ['zsh', 'zsh'],
  ['fish', 'fish'],
  ['systemd-analyze', 'systemd'],
]);

/** Installs lintian, rpmbuild, the shells and the rest where they are missing; says what. */
export function needTools(): void {
  const say = (line: string): void => void process.stderr.write(`packaging tests: ${line}\n`);
  ensureBuildTools(Object.values(TARGETS), ['deb', 'rpm'], say);
  ensurePrograms(TEST_PROGRAMS, say);
}

/** A directory of this process; the caller removes it. */
export function scratch(): string {
  return mkdtempSync(join(tmpdir(), 'layerswarm-packages-'));
}

let bundled: string | undefined;

/**
 * The built program: that of LAYERSWARM_TEST_DIST, else this source, bundled once per process. Never the `dist/` that lies in the
 * checkout: it is of whatever source was there when somebody built it.
 */
export function builtProgram(): string {
  const given = process.env['LAYERSWARM_TEST_DIST'] ?? '';
  if (given !== '') return resolve(given);
  if (bundled !== undefined) return bundled;
  const directory = scratch();
  process.once('exit', () => removeTree(directory));
  const script = `import { bundle } from ${JSON.stringify(join(ROOT, 'test/setup/bundle.ts'))}; await bundle(process.argv[1]);`;
  const node = ['--disable-warning=ExperimentalWarning', '--input-type=module'];
  bundled = join(directory, 'dist');
  output(process.execPath, [...node, '--eval', script, bundled]);
  return bundled;
}

/** Runs `npm run package` in its quick form and returns the paths of deb and rpm. */
export function buildPackages(
  out: string,
  { architecture = 'amd64', cwd = ROOT, umask = '022', env = {}, more = [] }: BuildOptions = {},
): { readonly deb: string; readonly rpm: string; readonly said: string } {
  const script = join(ROOT, 'packaging/package.ts');
  const args = ['--arch', architecture, '--fast', '--no-lint', '--out', out];
  const { status, stdout, stderr } = spawnSync(
    'sh',
    [
      ...['-c', 'umask "$0"; exec "$@"', umask],
      ...[process.execPath, '--disable-warning=ExperimentalWarning', script],
      ...[...args, '--dist', builtProgram(), ...more],
    ],
    { cwd, encoding: 'utf8', timeout: DEADLINE_MS, env: { ...process.env, ...env } },
  );
  if (status !== 0) throw new Error(`package.ts ended with ${status ?? 'a signal'}:\n${stderr}`);
  const names = readdirSync(out);
  const one = (end: string): string => join(out, names.find((name) => name.endsWith(end)) ?? '');
  return { deb: one('.deb'), rpm: one('.rpm'), said: stdout };
}

type BuildOptions = {
  readonly architecture?: Architecture;
  readonly cwd?: string;
  readonly umask?: string;
  readonly env?: Readonly<Record<string, string>>;
  readonly more?: readonly string[];
};

/** Files and directories of a deb by absolute path; a directory's mode begins with d. */
export function debFiles(deb: string): PackedFiles {
  const lines = output('dpkg-deb', ['--contents', deb]).trimEnd().split('\n');
  return new Map(
    lines.map((line) => {
      const [mode = '', owner = '', , , , ...path] = line.split(/ +/);
      return [
        path
          .join(' ')
          .replace(/^\.|\/$/g, '')
          .replace(/\/$/, ''),
        { mode, owner },
      ];
    }),
  );
}

/** The same of an rpm. */
export function rpmFiles(rpm: string): PackedFiles {
  const format = '[%{FILEMODES:perms}\\t%{FILEUSERNAME}/%{FILEGROUPNAME}\\t%{FILENAMES}\\n]';
  const lines = output('rpm', ['-qp', '--queryformat', format, rpm]).trimEnd().split('\n');
  return new Map(
    lines.map((line) => {
      const [mode = '', owner = '', path = ''] = line.split('\t');
      return [path, { mode, owner }];
    }),
  );
}

/** What a program wrote to stdout; fails when it fails. */
export function output(program: string, args: readonly string[]): string {
  return execFileSync(program, args, {
    encoding: 'utf8',
    timeout: DEADLINE_MS,
    maxBuffer: 64 * 1024 * 1024,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
}

/** Unpacks a deb and returns the tree's root. */
export function unpackDeb(deb: string, into: string): string {
  output('dpkg-deb', ['--extract', deb, into]);
  return into;
}

/** Removes it, whatever is in it. */
export function removeTree(directory: string): void {
  rmSync(directory, { recursive: true, force: true });
}
