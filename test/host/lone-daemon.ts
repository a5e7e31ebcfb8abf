// The daemon alone: a process on this machine with directories of its own and no swarm, no root, no containerd.
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { answersOn } from './lab/daemon.ts';
import { LabProcess } from './lab/process.ts';
import { RUN_PREFIX } from './lab/residue.ts';
import { tryCommand } from './lab/run-command.ts';
import type { CommandResult } from './lab/run-command.ts';

const MAIN = resolve(import.meta.dirname, '../../src/main.ts');
const PROGRAM = [process.execPath, '--disable-warning=ExperimentalWarning', MAIN];
/** A start that fails does so within this time, in ms. */
const START_DEADLINE_MS = 15_000;

/** Directories and a configuration file; the daemon is started and stopped by name. */
export class LoneDaemon implements AsyncDisposable {
  readonly dir: string;
  readonly socket: string;
  readonly content_dir: string;
  readonly state_dir: string;
  readonly config: string;
  #process: LabProcess | undefined;
  #starts = 0;

  private constructor(dir: string) {
    this.dir = dir;
    this.socket = join(dir, 'daemon.sock');
    this.content_dir = join(dir, 'content');
    this.state_dir = join(dir, 'state');
    this.config = join(dir, 'config.toml');
  }

  /** The directories with a valid configuration; nothing runs yet. */
  static async prepare(): Promise<LoneDaemon> {
    const lone = new LoneDaemon(await mkdtemp(join(tmpdir(), `${RUN_PREFIX}lone-`)));
    await mkdir(lone.content_dir);
    await lone.configure();
    return lone;
  }

  /** Writes the configuration with more sections or keys; `replace` swaps one text for another. */
  async configure(replace: readonly (readonly [string, string])[] = []): Promise<void> {
    let text = `[store]
content_directory = "${this.content_dir}"
state_directory = "${this.state_dir}"
disk_floor_bytes = 0
[content]
socket_path = "${this.socket}"
drain_ms = 2000
[swarm]
enabled = false
[metrics]
listen = ""
[log]
level = "info"
`;
    for (const [old, fresh] of replace) {
      if (!text.includes(old)) throw new Error(`the configuration has no ${old}`);
      text = text.replace(old, fresh);
    }
    await writeFile(this.config, text);
  }

  /** Starts the daemon and waits until it answers. */
  async start(): Promise<LabProcess> {
    this.#starts += 1;
    this.#process = await LabProcess.start({
      name: 'daemon',
      argv: [...PROGRAM, 'daemon', '--config', this.config],
      log: join(this.dir, `daemon-${this.#starts}.log`),
    });
    await this.#process.ready(() => answersOn(this.socket), { deadline_ms: START_DEADLINE_MS });
    return this.#process;
  }

  /** Runs the daemon in the foreground to its end, for starts that must fail. */
  async failToStart(): Promise<CommandResult> {
    return tryCommand([...PROGRAM, 'daemon', '--config', this.config], {
      deadline_ms: START_DEADLINE_MS,
    });
  }

  /** Any other subcommand. */
  async cli(args: readonly string[]): Promise<CommandResult> {
    return tryCommand([...PROGRAM, ...args], { deadline_ms: START_DEADLINE_MS });
  }

  async stop(): Promise<void> {
    await this.#process?.stop();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
    await rm(this.dir, { recursive: true, force: true });
  }
}
