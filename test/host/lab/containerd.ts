// One real containerd on a lab host, with its clients: ctr and the CRI socket.
import { chmod, mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { PROXY_NAME, containerdConfig, plainHttpHosts } from './containerd-config.ts';
import type { ContentStore } from './containerd-config.ts';
import { CriClient } from './cri-client.ts';
import type { ContainerdLine, ContainerdPackage, DebianTools } from './debian-packages.ts';
import { builtContainerd } from './go-programs.ts';
import type { LabHost } from './host.ts';
import type { LabProcess } from './process.ts';
import { CommandError } from './run-command.ts';
import type { CommandResult } from './run-command.ts';

const SYSTEM_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

export interface ContainerdOptions {
  readonly line: ContainerdLine;
  /** Registry (`address:port`) that is reached by plain HTTP. */
  readonly registry: string;
  /** Pod sandbox image; only CRI pods need it. Default: `<registry>/pause:latest`. */
  readonly sandbox_image?: string;
  /** Default: the built-in store. */
  readonly store?: ContentStore;
  /** Whether namespaces may share blobs. Default: containerd's own, they may. */
  readonly sharing_policy?: 'isolated';
  /** Put igzip (also under the name unpigz) on containerd's PATH. Default: Go's own gzip on every machine. */
  readonly igzip?: boolean;
  /** Serve Go's own profiles at `debug_socket`. */
  readonly debug?: boolean;
}

export interface PullOptions {
  readonly client?: 'ctr' | 'cri';
  /** Default: `default` for ctr; CRI always uses `k8s.io`. */
  readonly namespace?: string;
  /** More flags for `ctr image pull`, e.g. `--local`. */
  readonly flags?: readonly string[];
  /** Default 120 s; then the client is killed, as on abort. */
  readonly deadline_ms?: number;
  readonly signal?: AbortSignal;
}

export interface PullResult {
  readonly elapsed_ms: number;
  /** What the client printed; for CRI the image reference it answered. */
  readonly output: string;
}

export interface CtrOptions {
  readonly namespace?: string;
  /** Default 60 s. */
  readonly deadline_ms?: number;
  readonly signal?: AbortSignal;
}

/** A row of `ctr plugins ls`. */
export interface PluginRow {
  readonly type: string;
  readonly id: string;
  readonly status: string;
}

/** How often a container is run that seems to print nothing. */
const RUNS_FOR_OUTPUT = 3;
let containers = 0;

/** The programs of a line: Debian's, or built (which takes two minutes the first time). */
export async function containerdOf(
  tools: DebianTools,
  line: ContainerdLine,
): Promise<ContainerdPackage> {
  return line === '2.3' || line === '2.4' ? builtContainerd(line) : tools.containerd[line];
}

/** A containerd with root and state of its own below its host's scratch directory. Starts stopped. */
export class LabContainerd implements AsyncDisposable {
  readonly host: LabHost;
  readonly package: ContainerdPackage;
  readonly dir: string;
  /** containerd's (and CRI's) unix socket. */
  readonly socket: string;
  /** Where it serves profiles when it was made with `debug`. */
  readonly debug_socket: string;
  /** Where the built-in content store keeps its blobs. */
  readonly content_dir: string;
  readonly #tools: DebianTools;
  readonly #options: ContainerdOptions;
  #store: ContentStore;
  #process: LabProcess | undefined;
  #cri: CriClient | undefined;

  private constructor(
    host: LabHost,
    tools: DebianTools,
    parts: { readonly options: ContainerdOptions; readonly programs: ContainerdPackage },
  ) {
    const { options } = parts;
    this.host = host;
    this.package = parts.programs;
    this.dir = join(host.dir, 'containerd');
    this.socket = join(this.dir, 'containerd.sock');
    this.debug_socket = join(this.dir, 'debug.sock');
    this.content_dir = join(this.dir, 'root/io.containerd.content.v1.content');
    this.#tools = tools;
    this.#options = options;
    this.#store = options.store ?? { kind: 'builtin' };
  }

  /** Makes the directories and starts it. */
  static async start(
    host: LabHost,
    tools: DebianTools,
    options: ContainerdOptions,
  ): Promise<LabContainerd> {
    const programs = await containerdOf(tools, options.line);
    const containerd = new LabContainerd(host, tools, { options, programs });
    await containerd.#prepare();
    await containerd.start();
    return containerd;
  }

  get version(): string {
    return this.package.version;
  }

  /** The running process; rejects use while stopped. */
  get process(): LabProcess {
    if (this.#process?.running !== true)
      throw new Error(`containerd on ${this.host.name} is not running`);
    return this.#process;
  }

  /** The CRI client of this containerd; one connection, reused over restarts. */
  get cri(): CriClient {
    return (this.#cri ??= new CriClient(this.socket, this.host.namespace));
  }

  /** Writes the configuration and starts containerd; resolves when it answers. */
  async start(): Promise<void> {
    if (this.#process?.running === true) return;
    const { registry, sandbox_image = `${registry}/pause:latest`, igzip } = this.#options;
    const { version, dir } = this;
    const { sharing_policy, debug } = this.#options;
    const settings = {
      ...{ version, dir, store: this.#store, runc: this.#tools.runc, sandbox_image },
      ...(sharing_policy !== undefined && { sharing_policy }),
      ...(debug === true && { debug_socket: this.debug_socket }),
    };
    const config = join(dir, 'config.toml');
    await writeFile(config, containerdConfig(settings));
    const path = [this.package.bin_dir, SYSTEM_PATH];
    if (igzip === true) path.unshift(join(dir, 'bin'));
    // Machines differ in the decompressors they have; measurements must not.
    const go = { CONTAINERD_DISABLE_PIGZ: '1', CONTAINERD_DISABLE_IGZIP: '1' };
    const program = join(this.package.bin_dir, 'containerd');
    this.#process = await this.host.spawn('containerd', [program, '--config', config], {
      env: { PATH: path.join(':'), ...(igzip === true ? {} : go) },
    });
    // Both doors: CRI says "not initialized" for a moment after ctr is served. Not by `ctr version`: it asks for the instance's id, which
    // 1.6 writes without a sync and never writes anew; after a power cut the file is empty, and this one answer is an error for good.
    const answers = async () => {
      await this.ctr(['namespaces', 'ls']);
      await this.cri.version({ deadline_ms: 2000 });
      return true;
    };
    await this.#process.ready(answers, { deadline_ms: 20_000 });
  }

  /** TERM, then KILL; containers keep running under their shims. */
  async stop(deadline_ms = 10_000): Promise<void> {
    await this.#process?.stop(deadline_ms);
    this.#process = undefined;
  }

  async restart(): Promise<void> {
    await this.stop();
    await this.start();
  }

  /** Chooses the content store of the next start; the same root directory is used. */
  useStore(store: ContentStore): void {
    this.#store = store;
  }

  /** Runs `ctr` against this containerd; exit codes other than 0 reject with `CommandError`. */
  async ctr(args: readonly string[], options: CtrOptions = {}): Promise<CommandResult> {
    const result = await this.#tryCtr(args, options);
    if (result.code === 0) return result;
    const tail = result.stderr.trim().slice(-2000);
    throw new CommandError(
      `ctr ${args.join(' ')} ended with ${String(result.code)}: ${tail}`,
      result,
    );
  }

  /** Pulls `ref`; rejects when the client fails, its deadline passes or it is aborted. */
  async pull(ref: string, options: PullOptions = {}): Promise<PullResult> {
    const { client = 'ctr', namespace, flags = [], deadline_ms = 120_000, signal } = options;
    const wait = { deadline_ms, ...(signal === undefined ? {} : { signal }) };
    if (client === 'cri') {
      const started = performance.now();
      const output = await this.cri.pullImage(ref, wait);
      return { output, elapsed_ms: performance.now() - started };
    }
    const hosts = ['--hosts-dir', join(this.dir, 'certs')];
    const { elapsed_ms, stdout } = await this.ctr(['image', 'pull', ...hosts, ...flags, ref], {
      ...wait,
      ...(namespace === undefined ? {} : { namespace }),
    });
    return { elapsed_ms, output: stdout };
  }

  /** Brings the image's blobs into a namespace and unpacks nothing. */
  async fetch(ref: string, namespace: string): Promise<void> {
    const hosts = ['--hosts-dir', join(this.dir, 'certs')];
    await this.ctr(['content', 'fetch', ...hosts, ref], { namespace, deadline_ms: 120_000 });
  }

  /** Digest of the image `ref` as containerd records it; undefined when there is none. */
  async imageDigest(ref: string, namespace = 'default'): Promise<string | undefined> {
    const { stdout } = await this.ctr(['image', 'ls', `name==${ref}`], { namespace });
    return /\b(sha256:[0-9a-f]{64})\b/.exec(stdout)?.[1];
  }

  /** Digests containerd's metadata lists in a namespace. */
  async contentList(namespace = 'default'): Promise<string[]> {
    const { stdout } = await this.ctr(['content', 'ls', '--quiet'], { namespace });
    return stdout.split('\n').filter((line) => line !== '');
  }

  /** Removes an image and waits for the garbage collection it causes. */
  async removeImage(ref: string, namespace = 'default'): Promise<void> {
    await this.ctr(['image', 'rm', '--sync', ref], { namespace });
  }

  /** Removes every image of the namespaces (CRI records three names for one) and waits for the garbage collection. */
  async clear(spaces: readonly string[] = ['default', 'k8s.io']): Promise<void> {
    for (const namespace of spaces) {
      const { stdout } = await this.ctr(['image', 'ls', '--quiet'], { namespace });
      const refs = stdout.split('\n').filter((line) => line !== '');
      if (refs.length > 0) await this.ctr(['image', 'rm', '--sync', ...refs], { namespace });
    }
  }

  /**
   * Runs a container to its end (`ctr run --rm`), by default the image's own command; resolves to its stdout. A container that printed
   * nothing is run again, up to twice: on a busy machine ctr sometimes ends before it has copied what a short one said (1 of 60 with
   * 2.3 and its built-in store).
   */
  async runContainer(
    ref: string,
    command: readonly string[] = [],
    options: CtrOptions = {},
  ): Promise<string> {
    for (let left = RUNS_FOR_OUTPUT; ; left -= 1) {
      const said = await this.#runOnce(ref, command, options);
      if (said !== '' || left <= 1) return said;
    }
  }

  async #runOnce(ref: string, command: readonly string[], options: CtrOptions): Promise<string> {
    containers += 1;
    const id = `${this.host.namespace}-${containers}`;
    const cgroup = ['--cgroup', `/${this.host.namespace}/${id}`];
    const runc = ['--runc-binary', this.#tools.runc];
    const args = ['run', '--rm', ...runc, ...cgroup, ref, id, ...command];
    return (await this.ctr(args, options)).stdout;
  }

  async plugins(): Promise<PluginRow[]> {
    const { stdout } = await this.ctr(['plugins', 'ls']);
    return stdout
      .split('\n')
      .slice(1)
      .map((line) => line.trim().split(/\s+/))
      .filter((cells) => cells.length >= 3)
      .map((cells) => ({ type: cells[0]!, id: cells[1]!, status: cells.at(-1)! }));
  }

  /** Id of the content plugin in use: `content` or the proxy's name. */
  async contentPlugin(): Promise<string | undefined> {
    const rows = await this.plugins();
    const ids = ['content', PROXY_NAME];
    return rows.find(
      (r) => r.type === 'io.containerd.content.v1' && r.status === 'ok' && ids.includes(r.id),
    )?.id;
  }

  /** How long an unrelated metadata write takes (client start included), in ms: a namespace made and removed. */
  async metadataWriteMs(): Promise<number> {
    containers += 1;
    const name = `probe${containers}`;
    const { elapsed_ms } = await this.ctr(['namespaces', 'create', name]);
    await this.ctr(['namespaces', 'remove', name]);
    return elapsed_ms;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#cri?.close();
    await this.stop();
  }

  async #tryCtr(args: readonly string[], options: CtrOptions = {}): Promise<CommandResult> {
    const { namespace = 'default', deadline_ms = 60_000, signal } = options;
    const program = join(this.package.bin_dir, 'ctr');
    return this.host.tryRun([program, '-a', this.socket, '-n', namespace, ...args], {
      deadline_ms,
      ...(signal === undefined ? {} : { signal }),
    });
  }

  async #prepare(): Promise<void> {
    const { registry } = this.#options;
    for (const d of [`certs/${registry}`, 'cnibin', 'cninet', 'bin'])
      await mkdir(join(this.dir, d), { recursive: true });
    await writeFile(join(this.dir, 'certs', registry, 'hosts.toml'), plainHttpHosts(registry));
    const { bin, library_dir } = this.#tools.igzip;
    // 1.x looks for unpigz only, 2.x for igzip first; both are called with the same flags.
    for (const name of ['igzip', 'unpigz']) {
      const file = join(this.dir, 'bin', name);
      await writeFile(file, `#!/bin/sh\nLD_LIBRARY_PATH=${library_dir} exec ${bin} "$@"\n`);
      await chmod(file, 0o755);
    }
  }
}
