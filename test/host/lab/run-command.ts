// Runs one short command to its end: bounded output, always a deadline.
import { spawn } from 'node:child_process';

/** Bytes of output kept per stream; a command that says more is cut, its exit code still counts. */
const OUTPUT_LIMIT_BYTES = 8 * 1024 * 1024;

/** How a command ended. `code` is null when a signal ended it. */
export interface CommandResult {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
  readonly elapsed_ms: number;
}

export interface CommandOptions {
  /** Longest time the command may take, in ms; then it and its process group are killed. */
  readonly deadline_ms?: number;
  readonly signal?: AbortSignal;
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
  readonly input?: string;
}

/** A command that failed, ran out of time or could not start; the message carries the end of its stderr. */
export class CommandError extends Error {
  readonly result: CommandResult;

  constructor(message: string, result: CommandResult) {
    super(message);
    this.name = 'CommandError';
    this.result = result;
  }
}

/**
 * Runs `argv` and resolves however it exits; rejects with `CommandError` when it cannot start, passes its
 * deadline (default 60 s) or is aborted. The command dies with this process.
 */
export async function tryCommand(
  argv: readonly string[],
  options: CommandOptions = {},
): Promise<CommandResult> {
  const { deadline_ms = 60_000 } = options;
  const started = performance.now();
  const child = spawn('setpriv', ['--pdeathsig', 'KILL', '--', ...argv], {
    detached: true,
    cwd: options.cwd,
    env: options.env === undefined ? process.env : { ...process.env, ...options.env },
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  const stdout = collect(child.stdout);
  const stderr = collect(child.stderr);
  // The command may end without reading its input; its exit code tells the story.
  child.stdin.on('error', () => undefined);
  child.stdin.end(options.input ?? '');
  let cut: 'deadline' | 'abort' | undefined;
  const kill = (why: 'deadline' | 'abort') => () => {
    cut = why;
    if (child.pid !== undefined) killGroup(child.pid, 'SIGKILL');
  };
  const onAbort = kill('abort');
  const timer = setTimeout(kill('deadline'), deadline_ms);
  options.signal?.addEventListener('abort', onAbort, { once: true });
  if (options.signal?.aborted === true) onAbort();
  const ended = Promise.withResolvers<[number | null, NodeJS.Signals | null]>();
  child.once('error', ended.reject);
  child.once('close', (code, signal) => ended.resolve([code, signal]));
  try {
    const [code, signal] = await ended.promise;
    const elapsed_ms = performance.now() - started;
    const result = { code, signal, stdout: stdout(), stderr: stderr(), elapsed_ms };
    if (cut === 'deadline')
      throw new CommandError(failure(argv, result, `took longer than ${deadline_ms} ms`), result);
    if (cut === 'abort') throw new CommandError(failure(argv, result, 'was aborted'), result);
    return result;
  } finally {
    clearTimeout(timer);
    options.signal?.removeEventListener('abort', onAbort);
  }
}

/** Like `tryCommand`, and any exit code but 0 is a `CommandError` too. */
export async function runCommand(
  argv: readonly string[],
  options: CommandOptions = {},
): Promise<CommandResult> {
  const result = await tryCommand(argv, options);
  if (result.code !== 0)
    throw new CommandError(
      failure(argv, result, `ended with ${result.code ?? result.signal ?? 'no code'}`),
      result,
    );
  return result;
}

/** Sends `signal` to the process group led by `pid`; a group that is already gone is no error. */
export function killGroup(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(-pid, signal);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}

function collect(stream: NodeJS.ReadableStream): () => string {
  const chunks: Buffer[] = [];
  let size = 0;
  stream.on('data', (chunk: Buffer) => {
    if (size < OUTPUT_LIMIT_BYTES) chunks.push(chunk);
    size += chunk.length;
  });
  return () => Buffer.concat(chunks).toString('utf8', 0, OUTPUT_LIMIT_BYTES);
}

function failure(argv: readonly string[], result: CommandResult, how: string): string {
  const tail = (result.stderr.trim() || result.stdout.trim()).slice(-2000);
  return `\`${argv.join(' ').slice(0, 400)}\` ${how}${tail === '' ? '' : `: ${tail}`}`;
}
