// One long-running program of the bench: in its host's namespaces, its output in a file, its end certain.
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { open, readFile } from 'node:fs/promises';
import { pause } from './residue.ts';
import { killGroup } from './run-command.ts';

/** Bytes of the log's end that go into an error message. */
const TAIL_BYTES = 4096;

/** How a program ended. */
export interface Exit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

export interface ProcessOptions {
  /** Name for messages. */
  readonly name: string;
  /** What to run, already wrapped for its namespaces by an exec chain (so that the pid is the program's own). */
  readonly argv: readonly string[];
  /** File that takes stdout and stderr; appended to. */
  readonly log: string;
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
}

export interface WaitOptions {
  readonly deadline_ms: number;
  readonly signal?: AbortSignal;
}

/**
 * A spawned program, leader of its own process group, killed by the kernel when this process dies. Close it with
 * `await using` or `stop()`.
 */
export class LabProcess implements AsyncDisposable {
  readonly name: string;
  readonly pid: number;
  readonly log: string;
  /** Settles when the program ends; never rejects. */
  readonly exited: Promise<Exit>;
  #exit: Exit | undefined;

  private constructor(options: ProcessOptions, child: ChildProcess, pid: number) {
    this.name = options.name;
    this.pid = pid;
    this.log = options.log;
    this.exited = new Promise((resolve) => {
      child.once('exit', (code, signal) => {
        this.#exit = { code, signal };
        resolve(this.#exit);
      });
    });
  }

  /** Starts the program; rejects when it cannot be started at all. */
  static async start(options: ProcessOptions): Promise<LabProcess> {
    await using log = await open(options.log, 'a');
    const child = spawn('setpriv', ['--pdeathsig', 'KILL', '--', ...options.argv], {
      detached: true,
      cwd: options.cwd ?? '/',
      env: { ...process.env, ...options.env },
      stdio: ['ignore', log.fd, log.fd],
    });
    const failed = new Promise<never>((_, reject) => child.once('error', reject));
    const started = new Promise<void>((resolve) => child.once('spawn', () => resolve()));
    await Promise.race([started, failed]);
    return new LabProcess(options, child, child.pid!);
  }

  get running(): boolean {
    return this.#exit === undefined;
  }

  /** The last bytes of its output. */
  async tail(bytes = TAIL_BYTES): Promise<string> {
    return (await readFile(this.log, 'utf8').catch(() => '')).slice(-bytes);
  }

  /**
   * Polls `probe` until it resolves to true. A probe that throws counts as "not yet". Rejects with what it threw last and
   * the end of the log when the program ends first or the deadline passes.
   */
  async ready(probe: () => Promise<boolean>, wait: WaitOptions): Promise<void> {
    const deadline = performance.now() + wait.deadline_ms;
    let why: unknown;
    const answers = async () =>
      probe().catch((error: unknown) => {
        why = error;
        return false;
      });
    for (let delay = 10; ; delay = Math.min(delay * 1.5, 200)) {
      wait.signal?.throwIfAborted();
      if (!this.running) throw await this.#failure('ended before it was ready', why);
      if (await answers()) return;
      if (performance.now() > deadline)
        throw await this.#failure(`was not ready within ${wait.deadline_ms} ms`, why);
      await pause(delay);
    }
  }

  /** Sends a signal to the program alone (not its group). */
  kill(signal: NodeJS.Signals): void {
    if (this.running) process.kill(this.pid, signal);
  }

  /** TERM, and KILL to the whole group when it is still there after `deadline_ms`. Idempotent. */
  async stop(deadline_ms = 5000): Promise<Exit> {
    if (this.#exit !== undefined) return this.#exit;
    this.kill('SIGTERM');
    const timer = setTimeout(() => killGroup(this.pid, 'SIGKILL'), deadline_ms);
    try {
      return await this.exited;
    } finally {
      clearTimeout(timer);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  async #failure(how: string, cause: unknown): Promise<Error> {
    const asked = cause instanceof Error ? ` (last answer: ${cause.message})` : '';
    const tail = await this.tail();
    return new Error(`${this.name} ${how}${asked}; the end of its log ${this.log}:\n${tail}`, {
      cause,
    });
  }
}
