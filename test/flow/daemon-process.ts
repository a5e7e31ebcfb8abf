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
export const CLUSTER_KEY = '5a'.repeat(32);

type Lines = Partial<Record<'store' | 'content' | 'swarm' | 'metrics' | 'log', string>>;
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
  /** The cluster key file. */
  readonly key: string;

  private constructor(path: string) {
    this.path = path;
    this.config = join(path, 'config.toml');
    this.socket = join(path, 'daemon.sock');
    this.state = join(path, 'state');
    this.content = join(path, 'content');
    this.key = join(path, 'cluster.key');
  }

  /** Further lines of the sections; they replace the home's own by key. */
  static async create(lines: Lines = {}): Promise<DaemonHome> {
    const home = new DaemonHome(await mkdtemp(join(tmpdir(), 'layerswarm-flow-')));
    await mkdir(home.content);
    await writeFile(home.key, `${CLUSTER_KEY}\n`, { mode: 0o600 });
    await home.configure(lines);
    return home;
  }

  /** Writes the configuration. */
  async configure(lines: Lines = {}): Promise<void> {
    const own: Record<keyof Lines, string> = {
      store: `content_directory = "${this.content}"
state_directory = "${this.state}"
disk_floor_bytes = 0`,
      content: `socket_path = "${this.socket}"`,
      swarm: `cluster_key_file = "${this.key}"
listen_addresses = ["127.0.0.1"]
listen_port = 0`,
      metrics: 'listen = "127.0.0.1:0"',
      log: 'level = "info"',
    };
    const text = Object.entries(own).map(([name, mine]) => {
      const more = lines[name as keyof Lines] ?? '';
      const given = more.split('\n').map((line) => line.split('=')[0]);
      const kept = mine.split('\n').filter((line) => !given.includes(line.split('=')[0]));
      return `[${name}]\n${[...kept, more].join('\n')}\n`;
    });
    await writeFile(this.config, text.join(''));
  }

  /** Starts the daemon, or another program in its place; returns as soon as the process exists. */
  start(program?: readonly string[]): DaemonProcess {
    return new DaemonProcess(this.config, program);
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

  constructor(config: string, program: readonly string[] = [MAIN]) {
    const run = ['--disable-warning=ExperimentalWarning', ...program];
    this.#child = spawn(process.execPath, [...run, 'daemon', '--config', config], {
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
    return this.lines.find((line) => line.msg === message) ?? this.saysAgain(message);
  }

  /** The same for the next such line. */
  async saysAgain(message: string): Promise<LogLine> {
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

  get pid(): number {
    return this.#child.pid!;
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
