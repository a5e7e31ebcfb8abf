// Programs that no Debian suite carries, built from their own Go modules at pinned versions and kept in the test cache.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { globSync, statSync } from 'node:fs';
import { access, mkdir, readFile, readdir, rename, rm, utimes } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { cacheDir } from './debian-packages.ts';
import type { BuiltLine, ContainerdLine, ContainerdPackage } from './debian-packages.ts';
import { withFileLock } from './file-lock.ts';
import { runCommand } from './run-command.ts';

const MODULES = resolve(import.meta.dirname, '../build');
/** Two cores take 100 s for a containerd with nothing compiled before, and 40 s more for the clients. */
const BUILD_DEADLINE_MS = 10 * 60_000;
/** Raised when the same module would be built otherwise; what was built before is then not used. */
const SCHEMA = 1;

interface GoModule {
  /** Module that the programs are of; its version is the one go.mod requires. None: they are written here. */
  readonly of?: string;
  readonly packages: readonly string[];
  /** Variable that takes the version, as the linker names it. */
  readonly version_variable?: string;
  readonly tags: readonly string[];
}

/** File systems nobody here uses; two of them want C libraries. */
const SMALL = ['no_btrfs', 'no_devmapper', 'no_zfs'];
const CONTAINERD = 'github.com/containerd/containerd/v2';
const CONTAINERD_MODULE: GoModule = {
  of: CONTAINERD,
  packages: ['containerd', 'ctr', 'containerd-shim-runc-v2'].map((p) => `${CONTAINERD}/cmd/${p}`),
  version_variable: `${CONTAINERD}/version.Version`,
  tags: SMALL,
};
const CLIENTS = {
  nerdctl: {
    of: 'github.com/containerd/nerdctl/v2',
    packages: ['github.com/containerd/nerdctl/v2/cmd/nerdctl'],
    version_variable: 'github.com/containerd/nerdctl/v2/pkg/version.Version',
    tags: SMALL,
  },
  crictl: {
    of: 'sigs.k8s.io/cri-tools',
    packages: ['sigs.k8s.io/cri-tools/cmd/crictl'],
    version_variable: 'sigs.k8s.io/cri-tools/pkg/version.Version',
    tags: [],
  },
} as const satisfies Readonly<Record<string, GoModule>>;

/** What one module gave. */
interface BuiltPrograms {
  /** As the module requires it, e.g. `2.3.7`. */
  readonly version: string;
  /** Directory of the programs; must not be written to. */
  readonly bin_dir: string;
}

/** The containerd of a line that Debian does not carry, with `ctr` and the shim. */
export async function builtContainerd(line: BuiltLine): Promise<ContainerdPackage> {
  return { line, ...(await builtPrograms(`containerd-${line}`, CONTAINERD_MODULE)) };
}

/** Path of the program that delays the frames of a lab host. */
export async function builtDelay(): Promise<string> {
  return join((await builtPrograms('delay', { packages: ['.'], tags: [] })).bin_dir, 'delay');
}

/** Path of a client program. */
export async function builtClient(name: keyof typeof CLIENTS): Promise<string> {
  return join((await builtPrograms(name, CLIENTS[name])).bin_dir, name);
}

/**
 * Why this machine cannot run what needs a built program (of `line`, where one is named), or undefined when it can. In CI
 * it always can: a build fails there, it is not skipped.
 */
export function goReason(line?: ContainerdLine): string | undefined {
  if (line !== undefined && line !== '2.3' && line !== '2.4') return undefined;
  if ((process.env['CI'] ?? '') !== '') return undefined;
  return spawnSync('go', ['version']).status === 0 ? undefined : 'Go is not installed';
}

/**
 * Builds `test/host/build/<name>`, or finds it in the cache: keyed by everything that decides the bytes, so another version never
 * takes an older one's place. Safe to call from several processes at once; rejects with the end of the compiler's words.
 */
async function builtPrograms(name: string, module: GoModule): Promise<BuiltPrograms> {
  const source = join(MODULES, name);
  const version = module.of === undefined ? 'own' : await requiredVersion(source, module.of);
  const dir = join(cacheDir(), 'go');
  await mkdir(dir, { recursive: true });
  const bin_dir = join(dir, `${name}-${version}-${await digestOf(source, module)}`);
  return withFileLock(join(dir, `${name}.lock`), BUILD_DEADLINE_MS * 2, async () => {
    if (!(await exists(bin_dir))) {
      process.stderr.write(`layerswarm: building ${name} ${version} with Go (once)\n`);
      await build(source, bin_dir, version, module);
    }
    await dropOlder(dir, name, bin_dir);
    return { version, bin_dir };
  });
}

async function build(
  source: string,
  bin_dir: string,
  version: string,
  { packages, tags, version_variable }: GoModule,
): Promise<void> {
  const work = `${bin_dir}.part`;
  await rm(work, { recursive: true, force: true });
  await mkdir(work);
  const told = version_variable === undefined ? '' : ` -X ${version_variable}=${version}`;
  const linker = `-s -w${told}`;
  const flags = ['-mod=readonly', '-buildvcs=false', '-trimpath', '-tags', tags.join(',')];
  try {
    await runCommand(['go', 'build', ...flags, '-ldflags', linker, '-o', `${work}/`, ...packages], {
      cwd: source,
      deadline_ms: BUILD_DEADLINE_MS,
      // Static programs: they run on any libc, and no C compiler is needed.
      env: { CGO_ENABLED: '0', GOFLAGS: '', GOWORK: 'off' },
    });
    await rename(work, bin_dir);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

/** The version of `of` that a module's go.mod requires, without its `v`. */
async function requiredVersion(source: string, of: string): Promise<string> {
  const text = await readFile(join(source, 'go.mod'), 'utf8');
  const line = text.split('\n').find((l) => l.startsWith(`require ${of} v`));
  const version = /v(\S+)$/.exec(line ?? '')?.[1];
  if (version === undefined) throw new Error(`${source}/go.mod does not require ${of}`);
  return version;
}

async function digestOf(source: string, module: GoModule): Promise<string> {
  const hash = createHash('sha256').update(JSON.stringify([SCHEMA, module, process.arch]));
  for (const file of globSync('**/*.{mod,sum,go}', { cwd: source }).toSorted())
    hash.update(`${file}\0`).update(await readFile(join(source, file)));
  return hash.digest('hex').slice(0, 12);
}

/** Keeps the set in use and the one used before it: checkouts that share a cache may be one version apart. */
async function dropOlder(dir: string, name: string, current: string): Promise<void> {
  const now = new Date();
  await utimes(current, now, now);
  const sets = (await readdir(dir))
    .filter((n) => n.startsWith(`${name}-`))
    .map((n) => join(dir, n));
  const old = sets.toSorted((a, b) => statSync(b).mtimeMs - statSync(a).mtimeMs).slice(2);
  for (const path of old) await rm(path, { recursive: true, force: true });
}

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}
