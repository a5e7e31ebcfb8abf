// The real programs of the bench, as Debian builds them: unpacked beside the host's packages, never installed.
import { access, mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { debianEntry, readAptEntries } from './apt-mirror.ts';
import type { AptEntry } from './apt-mirror.ts';
import { withFileLock } from './file-lock.ts';
import { runCommand, tryCommand } from './run-command.ts';

/** The containerd lines that a Debian suite carries. */
type DebianLine = '1.6' | '1.7' | '2.1';
/** Those that are built from their Go module (`go-programs.ts`). */
export type BuiltLine = '2.3' | '2.4';
/** The containerd lines the host tests know. */
export type ContainerdLine = DebianLine | BuiltLine;

export interface ContainerdPackage {
  readonly line: ContainerdLine;
  /** Upstream version as the program states it, e.g. `1.7.24`. */
  readonly version: string;
  /** Directory with `containerd`, `ctr` and the shims. */
  readonly bin_dir: string;
}

/** Absolute paths of everything unpacked. One runc (bookworm's) serves all containerds: newer ones want a newer libc. */
export interface DebianTools {
  readonly containerd: Readonly<Record<DebianLine, ContainerdPackage>>;
  readonly runc: string;
  readonly registry: string;
  /** In front of the registry: TLS, authentication, limits, redirects. */
  readonly nginx: string;
  readonly igzip: { readonly bin: string; readonly library_dir: string };
  /** A static busybox, the runnable content of test images. */
  readonly busybox: string;
  /** What differs from the versions the bench was written against; empty when nothing does. */
  readonly notes: readonly string[];
}

type Suite = 'bookworm' | 'trixie' | 'sid';
type Versions = Readonly<Record<string, string>>;
interface Stamp {
  readonly schema: number;
  readonly architecture: string;
  readonly suites: Readonly<Record<Suite, Versions>>;
  readonly containerd: Readonly<Record<DebianLine, string>>;
}

const SCHEMA = 1;
const PACKAGES: Readonly<Record<Suite, readonly string[]>> = {
  bookworm: [
    'containerd',
    'runc',
    'docker-registry',
    'nginx',
    'isal',
    'libisal2',
    'busybox-static',
  ],
  trixie: ['containerd'],
  sid: ['containerd'],
};
const SUITE_OF: Readonly<Record<DebianLine, Suite>> = {
  '1.6': 'bookworm',
  '1.7': 'trixie',
  '2.1': 'sid',
};
const LINES = ['1.6', '1.7', '2.1'] as const satisfies readonly DebianLine[];
/** Keys of every Debian suite, where the machine has them. */
export const DEBIAN_KEYRING = '/usr/share/keyrings/debian-archive-keyring.gpg';
/** Two index files and ~40 MB of packages took 15 s on the slowest machine seen; this is for bad days. */
const NETWORK_DEADLINE_MS = 5 * 60_000;
/** Programs the bench itself needs, by the Debian package that brings each. */
const HOST_TOOLS: Readonly<Record<string, string>> = {
  ip: 'iproute2',
  tc: 'iproute2',
  bridge: 'iproute2',
  tar: 'tar',
  setpriv: 'util-linux',
  nsenter: 'util-linux',
  unshare: 'util-linux',
  flock: 'util-linux',
  openssl: 'openssl',
};

/** Where unpacked packages and built images are kept: `LAYERSWARM_TEST_CACHE`, else `.cache` of the checkout. */
export function cacheDir(): string {
  const given = process.env['LAYERSWARM_TEST_CACHE'];
  return given === undefined || given === ''
    ? resolve(import.meta.dirname, '../../../.cache')
    : resolve(given);
}

/**
 * The unpacked programs; from the cache without any network when they are there. Safe to call from several
 * processes at once. Fails with one sentence that names the suite and the package.
 */
export async function debianTools(options: { signal?: AbortSignal } = {}): Promise<DebianTools> {
  await ensurePrograms(HOST_TOOLS);
  const dir = join(cacheDir(), 'debian');
  await mkdir(dir, { recursive: true });
  return withFileLock(join(dir, 'lock'), NETWORK_DEADLINE_MS * 2, async () => {
    const cached = await readStamp(dir);
    if (cached !== undefined) return toolsOf(dir, cached);
    return toolsOf(dir, await fetchAll(dir, options.signal));
  });
}

/**
 * Makes sure programs (name -> Debian package that brings it) are on this machine: installs the packages it lacks, which
 * needs root, and says which on stderr. Rejects with one sentence when it cannot.
 */
export async function ensurePrograms(programs: Readonly<Record<string, string>>): Promise<void> {
  const lacking = new Set<string>();
  for (const [program, pkg] of Object.entries(programs)) {
    const found = ['/usr/sbin', '/usr/bin', '/sbin', '/bin'].map((d) => exists(join(d, program)));
    if (!(await Promise.all(found)).includes(true)) lacking.add(pkg);
  }
  if (lacking.size === 0) return;
  const names = [...lacking].join(', ');
  if (process.getuid?.() !== 0)
    throw new Error(`the host tests need ${names}: install them, or run as root`);
  process.stderr.write(`layerswarm: installing ${names} on this machine (apt)\n`);
  const patient = ['-o', `DPkg::Lock::Timeout=${NETWORK_DEADLINE_MS / 2000}`];
  const install = ['apt-get', ...patient, 'install', '-y', '--no-install-recommends', ...lacking];
  const env = { DEBIAN_FRONTEND: 'noninteractive' };
  const first = await tryPlain(install, env);
  if (first === 0) return;
  await tryPlain(['apt-get', 'update'], env);
  if ((await tryPlain(install, env)) !== 0)
    throw new Error(`apt-get could not install ${names}; install them by hand`);
}

async function fetchAll(dir: string, signal: AbortSignal | undefined): Promise<Stamp> {
  const entry = debianEntry(await readAptEntries());
  if (entry === undefined)
    throw new Error(
      "this machine's apt configuration has no Debian bookworm main entry; add one to /etc/apt/sources.list.d, or set LAYERSWARM_TEST_CACHE to a filled cache",
    );
  const architecture = (await runCommand(['dpkg', '--print-architecture'])).stdout.trim();
  const suites = Object.keys(PACKAGES) as Suite[];
  // The suites do not depend on one another, and the network is the slow part.
  const versions = await Promise.all(suites.map((s) => fetchSuite(dir, s, entry, signal)));
  const containerd = await Promise.all(LINES.map(async (l) => [l, await versionOf(dir, l)]));
  const stamp: Stamp = {
    schema: SCHEMA,
    architecture,
    suites: Object.fromEntries(suites.map((s, i) => [s, versions[i]!])) as Stamp['suites'],
    containerd: Object.fromEntries(containerd) as Stamp['containerd'],
  };
  await writeFile(join(dir, 'stamp.json.new'), JSON.stringify(stamp, null, 2));
  await rename(join(dir, 'stamp.json.new'), join(dir, 'stamp.json'));
  return stamp;
}

async function fetchSuite(
  dir: string,
  suite: Suite,
  entry: AptEntry,
  signal: AbortSignal | undefined,
): Promise<Versions> {
  const work = join(dir, `${suite}.new`);
  await rm(work, { recursive: true, force: true });
  const debs = join(work, 'debs');
  for (const d of ['apt/lists/partial', 'apt/cache/archives/partial', 'debs', 'root'])
    await mkdir(join(work, d), { recursive: true });
  const keyring = (await exists(DEBIAN_KEYRING)) ? DEBIAN_KEYRING : entry.signedBy;
  const bound = keyring === undefined ? '' : ` signed-by=${keyring}`;
  // Only the package index: desktop metadata would double the download.
  const line = `deb [target=Packages${bound}] ${entry.uri} ${suite} main\n`;
  await writeFile(join(work, 'apt/sources.list'), line);
  await writeFile(join(work, 'apt/status'), '');
  await writeFile(join(work, 'apt/apt.conf'), aptConfiguration(join(work, 'apt')));
  const apt = ['apt-get', '-c', join(work, 'apt/apt.conf')];
  const options = {
    deadline_ms: NETWORK_DEADLINE_MS,
    cwd: debs,
    ...(signal === undefined ? {} : { signal }),
  };
  const names = PACKAGES[suite];
  try {
    await runCommand([...apt, 'update'], options);
    await runCommand([...apt, 'download', ...names], options);
  } catch (error) {
    throw new Error(
      `could not fetch ${names.join(', ')} of Debian ${suite}: check that apt-get update works on this machine and that its mirror carries ${suite}`,
      { cause: error },
    );
  }
  const versions: Record<string, string> = {};
  for (const deb of await readdir(debs)) {
    await runCommand(['dpkg', '-x', join(debs, deb), join(work, 'root')], options);
    const [name, version] = (
      await runCommand(['dpkg-deb', '-W', '--showformat=${Package} ${Version}', join(debs, deb)])
    ).stdout.split(' ');
    versions[name!] = version!.trim();
  }
  for (const d of ['apt', 'debs']) await rm(join(work, d), { recursive: true });
  await rm(join(dir, suite), { recursive: true, force: true });
  await rename(work, join(dir, suite));
  return versions;
}

/** A private apt state, after the machine's own settings (its proxy stays valid) and without its hooks. */
function aptConfiguration(apt: string): string {
  return `Dir::State "${apt}";
Dir::State::lists "${apt}/lists";
Dir::State::status "${apt}/status";
Dir::Cache "${apt}/cache";
Dir::Etc::sourcelist "${apt}/sources.list";
Dir::Etc::sourceparts "/dev/null";
Debug::NoLocking "1";
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::Retries "2";
APT::Update::Error-Mode "any";
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
`;
}

async function versionOf(dir: string, line: DebianLine): Promise<string> {
  const program = join(dir, SUITE_OF[line], 'root/usr/bin/containerd');
  const { stdout } = await runCommand([program, '--version']).catch((error: unknown) => {
    throw new Error(
      `containerd of Debian ${SUITE_OF[line]} does not run on this machine (a newer libc may be needed)`,
      { cause: error },
    );
  });
  const version = /\bv?(\d+\.\d+\.\d+)/.exec(stdout)?.[1];
  if (version === undefined) throw new Error(`${program} --version says: ${stdout.trim()}`);
  return version;
}

async function readStamp(dir: string): Promise<Stamp | undefined> {
  const text = await readFile(join(dir, 'stamp.json'), 'utf8').catch(() => undefined);
  if (text === undefined) return undefined;
  const stamp = JSON.parse(text) as Stamp;
  if (stamp.schema !== SCHEMA) return undefined;
  const same = (s: Suite) => PACKAGES[s].every((p) => stamp.suites[s][p] !== undefined);
  if (!(Object.keys(PACKAGES) as Suite[]).every(same)) return undefined;
  const tools = toolsOf(dir, stamp);
  const files = [tools.runc, tools.registry, tools.nginx, tools.igzip.bin, tools.busybox];
  for (const l of LINES) files.push(join(tools.containerd[l].bin_dir, 'containerd'));
  return (await Promise.all(files.map(exists))).every(Boolean) ? stamp : undefined;
}

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}

function toolsOf(dir: string, stamp: Stamp): DebianTools {
  const bookworm = join(dir, 'bookworm/root');
  const triplet = stamp.architecture === 'arm64' ? 'aarch64-linux-gnu' : 'x86_64-linux-gnu';
  const containerd = LINES.map((line) => {
    const bin_dir = join(dir, SUITE_OF[line], 'root/usr/bin');
    return [line, { line, version: stamp.containerd[line], bin_dir }] as const;
  });
  return {
    containerd: Object.fromEntries(containerd) as DebianTools['containerd'],
    runc: join(bookworm, 'usr/sbin/runc'),
    registry: join(bookworm, 'usr/bin/docker-registry'),
    nginx: join(bookworm, 'usr/sbin/nginx'),
    igzip: {
      bin: join(bookworm, 'usr/bin/igzip'),
      library_dir: join(bookworm, 'usr/lib', triplet),
    },
    busybox: join(bookworm, 'bin/busybox'),
    notes: LINES.filter((l) => !stamp.containerd[l].startsWith(`${l}.`)).map(
      (l) => `Debian ${SUITE_OF[l]} now carries containerd ${stamp.containerd[l]}, not ${l}.x`,
    ),
  };
}

async function tryPlain(argv: string[], env: Record<string, string>): Promise<number | null> {
  return (await tryCommand(argv, { env, deadline_ms: NETWORK_DEADLINE_MS })).code;
}
