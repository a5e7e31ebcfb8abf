import { createHash } from 'node:crypto';
import * as fs from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import type { TestContext } from 'node:test';
import { parse, stringify } from 'smol-toml';
import { DaemonError } from '../../src/base/errors.ts';
import { HostFiles } from '../../src/host/host-files.ts';
import type { RunProgram } from '../../src/host/run-program.ts';
import { ClusterKeys } from '../../src/swarm/admission/cluster-key.ts';
import type { WiringModules } from '../../src/host/wiring-host.ts';
import { commandBench } from '../cli/command-bench.ts';
import { FakeClock } from '../fakes/fake-clock.ts';
import { DEBIAN } from './configs.ts';

export const KEY = 'ab'.repeat(32);
const MANIFEST = '{"schemaVersion":2}';
const DIGEST = `sha256:${createHash('sha256').update(MANIFEST).digest('hex')}`;
const BUILTIN = 'io.containerd.content.v1.content';

type Table = Record<string, unknown>;
/** An effective configuration, and the version its main file was written in, which the dump does not tell. */
type Read = { readonly dump: Table; readonly written: number };
type Options = {
  readonly version?: string;
  /** Command line of the running containerd; null = none runs. */
  readonly argv?: readonly string[] | null;
  readonly main?: string | null;
  readonly parent?: string;
  readonly unit?: string;
  readonly systemd?: boolean;
};

/**
 * A host in a temporary tree, with a containerd that reads its configuration as the real ones do (imports, globs, appended
 * lists, proxies by key, version 1's own names) and a systemd that restarts it. What it knows of containerd is its own and not the
 * product's, so that the two can disagree; the real ones are in test/host/wiring.test.ts.
 */
export class FakeHost {
  readonly dir: string;
  readonly version: string;
  readonly calls: string[] = [];
  readonly #pid = '4242';
  /** What the running containerd has read. */
  live: Read;
  /** Our service runs before anything is done. */
  active = false;
  /** Our daemon answers. */
  daemon = true;
  /** What goes wrong at the next restart of containerd. */
  trouble: 'none' | 'does-not-start' | 'images-unreadable' = 'none';
  #up = true;
  #files: HostFiles;
  readonly #command: (...args: string[]) => Promise<{ code: number; out: string; err: string }>;

  constructor(t: TestContext, options: Options = {}) {
    this.dir = fs.mkdtempSync(join(tmpdir(), 'layerswarm-wiring-'));
    t.after(() => fs.rmSync(this.dir, { recursive: true }));
    this.#files = new HostFiles(this.dir);
    const host = { is_root: true, confirm: undefined, wiring: async () => this.#wiring() };
    this.#command = commandBench(t, { host }).run;
    this.version = options.version ?? '1.7.24';
    const argv = options.argv === undefined ? ['/usr/bin/containerd'] : options.argv;
    this.put('/usr/bin/containerd', '');
    this.put('/usr/bin/ctr', '');
    this.put('/usr/lib/systemd/system/layerswarm.service', '');
    this.put('/var/lib/containerd/io.containerd.content.v1.content/blobs/x', 'blob');
    if (options.systemd !== false)
      fs.mkdirSync(this.at('/run/systemd/system'), { recursive: true });
    if (options.main !== null) this.put('/etc/containerd/config.toml', options.main ?? DEBIAN);
    if (argv !== null) this.process(this.#pid, argv, options);
    this.live = this.#read(this.at(flag(argv ?? [], 'config') ?? '/etc/containerd/config.toml'));
  }

  at(path: string): string {
    return this.dir + path;
  }

  put(path: string, text: string, mode = 0o644): void {
    fs.mkdirSync(dirname(this.at(path)), { recursive: true });
    fs.writeFileSync(this.at(path), text, { mode });
  }

  text(path: string): string {
    return fs.readFileSync(this.at(path), 'utf8');
  }

  process(
    pid: string,
    argv: readonly string[],
    { parent = 'systemd', unit = 'containerd.service' }: Options,
  ): void {
    this.put(`/proc/${pid}/comm`, 'containerd\n');
    this.put(`/proc/${pid}/cmdline`, `${argv.join('\0')}\0`);
    this.put(`/proc/${pid}/status`, 'Name:\tcontainerd\nPPid:\t1\n');
    this.put(`/proc/${pid}/cgroup`, `0::/system.slice/${unit}\n`);
    this.put('/proc/1/comm', `${parent}\n`);
    fs.symlinkSync(argv[0]!, this.at(`/proc/${pid}/exe`));
  }

  /** Every file below the tree with its mode and bytes, directories with their mode: what "nothing changed" means. */
  tree(): Record<string, string> {
    const found: Record<string, string> = {};
    for (const entry of fs.readdirSync(this.dir, { recursive: true, withFileTypes: true })) {
      const path = join(entry.parentPath, entry.name);
      const stat = fs.lstatSync(path);
      const content = stat.isFile()
        ? `${stat.ino} ${fs.readFileSync(path, 'latin1')}`
        : stat.isSymbolicLink()
          ? fs.readlinkSync(path)
          : '';
      found[path.slice(this.dir.length)] = `${(stat.mode & 0o7777).toString(8)} ${content}`;
    }
    return found;
  }

  /** The same without inodes: a file that was replaced by its equal is equal. */
  contents(): Record<string, string> {
    return Object.fromEntries(
      Object.entries(this.tree()).map(([path, state]) => [
        path,
        state.replace(/^(\d+) \d+ /, '$1 '),
      ]),
    );
  }

  readonly run: RunProgram = async (argv) => {
    const [program = '', ...args] = argv.map((a) => a.replace(this.dir, ''));
    const line = [program, ...args].join(' ');
    if (program === '/usr/bin/containerd') return this.#containerd(args, argv);
    if (program === 'systemctl') {
      if (!/^(show|is-|reset-failed)/.test(args[0] ?? '')) this.calls.push(args.join(' '));
      return this.#systemctl(args);
    }
    if (program === '/usr/bin/ctr') return this.#ctr(args.slice(2));
    if (program === 'dpkg') return ok(`containerd: ${args[1] ?? ''}\n`);
    throw new DaemonError('not_found', `${line} is not installed`);
  };

  /** Runs `layerswarm` on this host. Nobody sits at the terminal. */
  layerswarm(...args: readonly string[]) {
    this.#files = new HostFiles(this.dir);
    return this.#command(...args);
  }

  /** The same, and every change to the disk from number `fails` on fails, clearing up included: a crash. */
  async crashing(fails: number, ...args: readonly string[]) {
    const files = new CrashingFiles(this.dir, fails);
    this.#files = files;
    const { code } = await this.#command(...args);
    return { code, writes: files.writes };
  }

  #wiring(): WiringModules {
    return {
      files: this.#files,
      run: this.run,
      // Waiting is over at once: nothing here needs time.
      clock: new HurriedClock(),
      daemonAnswers: () =>
        this.daemon
          ? Promise.resolve()
          : Promise.reject(new DaemonError('unavailable', 'no daemon answers')),
      generateClusterKey: async () => KEY,
      checkClusterKey: async (text, path) => void ClusterKeys.parse(text, path),
      checkPeerAddress: async () => undefined,
    };
  }

  #containerd(args: readonly string[], real: readonly string[]) {
    if (args[0] === '--version')
      return ok(`containerd github.com/containerd/containerd ${this.version} x\n`);
    return ok(stringify(this.#read(real[real.indexOf('--config') + 1]!).dump));
  }

  #systemctl(args: readonly string[]) {
    if (args[0] === 'is-enabled') return ok('enabled\n');
    if (args[0] === 'is-active') return ok(this.active ? 'active\n' : 'inactive\n');
    if (args[0] === 'show') {
      const exec =
        'ExecStart={ path=/usr/bin/containerd ; argv[]=/usr/bin/containerd ; ignore_errors=no ; }';
      return ok(
        fs.existsSync(this.at('/unit-absent'))
          ? 'LoadState=not-found\n'
          : `LoadState=loaded\n${exec}\n`,
      );
    }
    if (args[0] === 'restart' && args.some((a) => a === 'containerd.service')) {
      this.#up = this.trouble !== 'does-not-start';
      if (this.#up) this.live = this.#read(this.at('/etc/containerd/config.toml'));
      else this.trouble = 'none';
    }
    return ok('');
  }

  #ctr(args: readonly string[]) {
    if (!this.#up) return { code: 1, stdout: '', stderr: 'connection refused' };
    const builtin = !this.#disables(this.live);
    const proxies = Object.keys(this.live.dump['proxy_plugins'] ?? {});
    const line = args.join(' ');
    if (line === 'plugins ls') {
      const row = (id: string) => `io.containerd.content.v1   ${id}   linux/amd64   ok        \n`;
      return ok(
        `TYPE ID PLATFORMS STATUS\n${builtin ? row('content') : ''}${proxies.map(row).join('')}`,
      );
    }
    if (line === 'namespaces ls -q') return ok('default\n');
    if (line === '-n default images check') {
      return ok(
        `REF TYPE DIGEST STATUS SIZE UNPACKED\nr/app:1 application/x ${DIGEST} complete (2/2) 10.0 B/10.0 B true\n`,
      );
    }
    if (line === `-n default content get ${DIGEST}`) {
      const broken = this.trouble === 'images-unreadable' && !builtin;
      return broken ? { code: 1, stdout: '', stderr: 'not found' } : ok(MANIFEST);
    }
    throw new Error(`the fake ctr knows no ${line}`);
  }

  /** Version 1 of 1.x compares with the plugin's short name, and is not told apart in the dump. */
  #disables({ dump, written }: Read): boolean {
    const version_one = this.version.startsWith('1.') && written === 1;
    return !version_one && (dump['disabled_plugins'] as string[]).includes(BUILTIN);
  }

  #read(file: string): Read {
    const main = fs.existsSync(file) ? parsed(file) : { version: 2 };
    const dump: Table = {
      root: '/var/lib/containerd',
      state: '/run/containerd',
      grpc: { address: '/run/containerd/containerd.sock' },
      ...structuredClone(main),
      version: this.version.startsWith('1.') ? 2 : 3,
      disabled_plugins: [...((main['disabled_plugins'] ?? []) as string[])],
      required_plugins: [...((main['required_plugins'] ?? []) as string[])],
    };
    const paths = ((main['imports'] ?? []) as string[]).flatMap((e) =>
      glob(resolve(dirname(file), e), this.dir),
    );
    for (const path of new Set(paths)) {
      const more = structuredClone(parse(fs.readFileSync(path, 'utf8'))) as Table;
      for (const [key, value] of Object.entries(more)) {
        if (key === 'disabled_plugins') (dump[key] as string[]).push(...(value as string[]));
        else if (key === 'proxy_plugins')
          dump[key] = { ...(dump[key] as Table | undefined), ...(value as Table) };
        else dump[key] = value;
      }
    }
    return { dump, written: Number(main['version'] ?? 1) };
  }
}

class CrashingFiles extends HostFiles {
  writes = 0;
  readonly #fails: number;

  constructor(root: string, fails: number) {
    super(root);
    this.#fails = fails;
  }

  override write(...args: Parameters<HostFiles['write']>): void {
    this.#step();
    super.write(...args);
  }

  override remove(path: string): void {
    this.#step();
    super.remove(path);
  }

  override makeDirectory(...args: Parameters<HostFiles['makeDirectory']>): void {
    this.#step();
    super.makeDirectory(...args);
  }

  override removeEmptyDirectory(path: string): void {
    this.#step();
    super.removeEmptyDirectory(path);
  }

  #step(): void {
    this.writes += 1;
    if (this.writes > this.#fails) throw new DaemonError('internal', 'crash');
  }
}

class HurriedClock extends FakeClock {
  override sleep(ms: number): Promise<void> {
    return this.advance(ms);
  }
}

/** A file that is no TOML: a containerd that began before it was broken goes on. */
function parsed(file: string): Table {
  try {
    return parse(fs.readFileSync(file, 'utf8'));
  } catch {
    return {};
  }
}

function ok(stdout: string) {
  return { code: 0, stdout, stderr: '' };
}

function flag(argv: readonly string[], name: string): string | undefined {
  const at = argv.indexOf(`--${name}`);
  return at === -1 ? undefined : argv[at + 1];
}

function glob(pattern: string, dir: string): string[] {
  const real = pattern.startsWith(dir) || pattern.startsWith(tmpdir()) ? pattern : dir + pattern;
  if (!real.includes('*')) return fs.existsSync(real) ? [real] : [];
  return fs.globSync(real);
}
