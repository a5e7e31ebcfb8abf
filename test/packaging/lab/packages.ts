// The packages of this checkout for this machine's architecture, built when their inputs have changed and kept in the test cache.
import { createHash } from 'node:crypto';
import { globSync } from 'node:fs';
import { mkdir, readFile, readdir, rename, rm, stat } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { cacheDir } from '../../host/lab/debian-packages.ts';
import { withFileLock } from '../../host/lab/file-lock.ts';
import { runCommand } from '../../host/lab/run-command.ts';

const ROOT = resolve(import.meta.dirname, '../../..');
/** Everything that can change a byte of a package. */
const INPUTS = [
  ...['src/**/*', 'proto/**/*', 'packaging/**/*', 'systemd/*', 'test/setup/*.ts', '*.json'],
  ...['CHANGELOG.md', 'LICENSE'],
];
/** Made by the build, or by other builds. */
const NOT_INPUTS = /^(src\/gen\/|packaging\/config\.toml$|knip\.json$|biome\.json$)/;
/** Two packages of 115 MB installed, little compressed, take half a minute. */
const BUILD_DEADLINE_MS = 10 * 60_000;
/** A program that is built already, instead of the build of this checkout. */
const DIST = process.env['LAYERSWARM_TEST_DIST'] ?? '';
/** Sets of packages that are kept: other checkouts share the cache. */
const KEPT = 6;

/** Packages of one version. Paths are absolute and must not be written to. */
export interface BuiltPackages {
  /** Upstream version, e.g. `0.1.0`. */
  readonly version: string;
  readonly deb: string;
  readonly rpm: string;
}

/**
 * Builds them, or finds them in the cache. `next` gives the same program under the next patch version, to try upgrades.
 * Compressed little; lintian and rpmlint are left to the packages' own tests.
 */
export async function builtPackages(
  options: { readonly next?: boolean; readonly signal?: AbortSignal } = {},
): Promise<BuiltPackages> {
  const { next = false, signal } = options;
  const text = await readFile(join(ROOT, 'package.json'), 'utf8');
  const version = versionOf((JSON.parse(text) as { version: string }).version, next);
  const dir = join(cacheDir(), 'packages');
  await mkdir(dir, { recursive: true });
  const out = join(dir, `${await inputsDigest()}-${version}`);
  return withFileLock(join(dir, 'lock'), BUILD_DEADLINE_MS * 2, async () => {
    const found = await packagesIn(out, version).catch(() => undefined);
    if (found !== undefined) return found;
    await prune(dir);
    const work = `${out}.part`;
    await rm(work, { recursive: true, force: true });
    try {
      await build(work, version, signal);
      await rm(out, { recursive: true, force: true });
      await rename(work, out);
    } finally {
      await rm(work, { recursive: true, force: true });
    }
    return packagesIn(out, version);
  });
}

async function build(out: string, version: string, signal: AbortSignal | undefined): Promise<void> {
  const flags = ['--arch', architecture(), '--fast', '--no-lint', '--out', out];
  if (DIST !== '') flags.push('--dist', resolve(DIST));
  const node = [process.execPath, '--disable-warning=ExperimentalWarning'];
  const script = join(ROOT, 'packaging/package.ts');
  await runCommand([...node, script, ...flags, '--version', version], {
    cwd: ROOT,
    deadline_ms: BUILD_DEADLINE_MS,
    ...(signal === undefined ? {} : { signal }),
  });
}

async function packagesIn(dir: string, version: string): Promise<BuiltPackages> {
  const names = await readdir(dir);
  const one = (end: string): string => {
    const name = names.find((n) => n.endsWith(end));
    if (name === undefined) throw new Error(`the build left no ${end} in ${dir}`);
    return join(dir, name);
  };
  return { version, deb: one('.deb'), rpm: one('.rpm') };
}

async function inputsDigest(): Promise<string> {
  const hash = createHash('sha256');
  const inputs = DIST === '' ? INPUTS : [...INPUTS, `${resolve(DIST)}/*`];
  for (const file of globSync(inputs, { cwd: ROOT }).toSorted()) {
    const path = resolve(ROOT, file);
    if (NOT_INPUTS.test(file) || !(await stat(path)).isFile()) continue;
    hash.update(`${file}\0`).update(await readFile(path));
  }
  return hash.digest('hex').slice(0, 16);
}

async function prune(dir: string): Promise<void> {
  const aged = await Promise.all(
    (await readdir(dir))
      .filter((name) => name !== 'lock')
      .map(async (name) => ({ name, age: (await stat(join(dir, name))).mtimeMs })),
  );
  const old = aged.toSorted((a, b) => b.age - a.age).slice(KEPT - 1);
  for (const { name } of old) await rm(join(dir, name), { recursive: true, force: true });
}

function versionOf(version: string, next: boolean): string {
  if (!next) return version;
  const [major, minor, patch] = version.split('.').map(Number);
  return `${major}.${minor}.${(patch ?? 0) + 1}`;
}

function architecture(): string {
  return process.arch === 'arm64' ? 'arm64' : 'amd64';
}
