import { type ChildProcessByStdio, execFile, spawn } from 'node:child_process';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import { fileURLToPath } from 'node:url';

const MAIN = fileURLToPath(new URL('../../src/main.ts', import.meta.url));
const RUN = ['--disable-warning=ExperimentalWarning', MAIN];
/** One cluster key for the daemons of a test; of no use elsewhere. */
const CLUSTER_KEY = '5a'.repeat(32);

type LogLine = Readonly<Record<string, unknown>> & { readonly msg: string; readonly level: string };
type Ended = { readonly code: number | null; readonly signal: NodeJS.Signals | null };
export type CommandEnd = { readonly code: number; readonly out: string; readonly err: string };

/** Runs one command line of the program and resolves to how it ended. */
export function layerswarm(...args: readonly string[]): Promise<CommandEnd> {
  return new Promise((resolve) => {
    const child = execFile(process.execPath, [...RUN, ...args], (_error, out, err) => {
      resolve({ code: child.exitCode ?? -1, out, err });
    });
  });
}

/** Directories and a configuration of one daemon. Disposing it removes them. */
export class DaemonHome implements AsyncDisposable {
  readonly path: string;
  readonly config: string;
  readonly socket: string;
  readonly state: string;
  readonly content: string;

  private constructor(path: string) {
    this.path = path;
    this.config = join(path, 'config.toml');
    this.socket = join(path, 'daemon.sock');
    this.state = join(path, 'state');
    this.content = join(path, 'content');
  }

  /** `swarm` and `content` are further lines of these sections. */
  static async create(lines: { swarm?: string; content?: string } = {}): Promise<DaemonHome> {
    const home = new DaemonHome(await mkdtemp(join(tmpdir(), 'layerswarm-flow-')));
    await mkdir(home.content);
    await writeFile(join(home.path, 'cluster.key'), `${CLUSTER_KEY}\n`, { mode: 0o600 });
    await writeFile(
      home.config,
      `[store]
content_directory = "${home.content}"
state_directory = "${home.state}"
disk_floor_bytes = 0
[content]
socket_path = "${home.socket}"
${lines.content ?? ''}
[swarm]
cluster_key_file = "${join(home.path, 'cluster.key')}"
listen_addresses = ["127.0.0.1"]
listen_port = 0
${lines.swarm ?? ''}
[metrics]
listen = "127.0.0.1:0"
[log]
level = "info"
`,
    );
    return home;
  }

  /** Starts the daemon; resolves as soon as the process exists. */
  start(): DaemonProcess {
    return new DaemonProcess(this.config);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.path, { recursive: true, force: true });
  }
}

/** A daemon as a process of its own. Disposing it kills it if it still runs. */
export class DaemonProcess implements AsyncDisposable {
  readonly lines: LogLine[] = [];
  stderr = '';
  readonly ended: Promise<Ended>;
  readonly #child: ChildProcessByStdio<null, Readable, Readable>;
  readonly #waits = new Map<string, (line: LogLine) => void>();

  constructor(config: string) {
    this.#child = spawn(process.execPath, [...RUN, 'daemon', '--config', config], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    this.#child.stderr.on('data', (bytes: Buffer) => (this.stderr += bytes.toString()));
    createInterface(this.#child.stdout).on('line', (text) => {
      const line = JSON.parse(text) as LogLine;
      this.lines.push(line);
      this.#waits.get(line.msg)?.(line);
    });
    this.ended = new Promise((resolve) => {
      this.#child.once('close', (code, signal) => resolve({ code, signal }));
    });
  }

  /** Waits for the log line with this message; rejects when the daemon ends without it. */
  async said(message: string): Promise<LogLine> {
    const found = this.lines.find((line) => line.msg === message);
    if (found !== undefined) return found;
    const line = new Promise<LogLine>((resolve) => this.#waits.set(message, resolve));
    const end = this.ended.then(({ code }) => {
      throw new Error(`the daemon ended with ${code} and never said "${message}": ${this.stderr}`);
    });
    return Promise.race([line, end]);
  }

  /** Base URL of the metrics endpoint, once started. */
  async endpoint(): Promise<string> {
    const { metrics_port } = await this.said('daemon started');
    return `http://127.0.0.1:${String(metrics_port)}`;
  }

  signal(name: NodeJS.Signals): void {
    this.#child.kill(name);
  }

  /** Lines an operator would have to look at. */
  get complaints(): readonly LogLine[] {
    return this.lines.filter(({ level }) => level === 'warn' || level === 'error');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#child.exitCode === null && this.#child.signalCode === null) this.signal('SIGKILL');
    await this.ended;
  }
}
