import { spawn } from 'node:child_process';
import { DaemonError, errnoOf } from '../base/errors.ts';

/** Most bytes of output kept per stream unless the caller wants fewer; what a program says beyond that is dropped, its exit code still counts. */
const OUTPUT_MAX_BYTES = 16 * 1024 * 1024;

/** How a program ended. `code` is null when a signal ended it. */
export type ProgramResult = {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
};

/**
 * `deadline_ms`: the program is killed when it takes longer. `input`: what it reads on stdin; nothing by default. `environment` is added to
 * our own.
 */
type ProgramLimits = {
  readonly signal: AbortSignal;
  readonly deadline_ms: number;
  readonly input?: string;
  readonly environment?: Readonly<Record<string, string>>;
  readonly output_max_bytes?: number;
};

/**
 * Runs a program of this host to its end, without a shell. Resolves whatever its exit code is; rejects with
 * `not_found` when there is no such program, `permission_denied` when it may not be run, `deadline_exceeded` when it
 * was killed at its deadline and `cancelled` when the signal ended it.
 */
export type RunProgram = (argv: readonly string[], limits: ProgramLimits) => Promise<ProgramResult>;

/** The real one. Output is UTF-8 and bounded; messages come in English so that they read like our own. */
export const runProgram: RunProgram = async (argv, limits) => {
  const { signal, deadline_ms, input, environment, output_max_bytes = OUTPUT_MAX_BYTES } = limits;
  const [program = '', ...args] = argv;
  const interrupted = (): boolean => signal.aborted;
  if (interrupted()) throw ended('cancelled', program, 'was not started: interrupted');
  const late = AbortSignal.timeout(deadline_ms);
  const child = spawn(program, args, {
    stdio: ['pipe', 'pipe', 'pipe'],
    env: { ...process.env, LC_ALL: 'C', ...environment },
    signal: AbortSignal.any([signal, late]),
    killSignal: 'SIGKILL',
  });
  const stdout = collect(child.stdout, output_max_bytes);
  const stderr = collect(child.stderr, output_max_bytes);
  // A program may end without reading its input; its exit code tells the story.
  child.stdin.on('error', () => undefined);
  child.stdin.end(input ?? '');
  try {
    const code = await new Promise<number | null>((resolve, reject) => {
      child.once('error', reject);
      child.once('close', resolve);
    });
    return { code, stdout: stdout(), stderr: stderr() };
  } catch (cause) {
    // What the program has started may hold its ends of the pipes for ever: writing on is the end of it, and we stop reading.
    child.stdout.destroy();
    child.stderr.destroy();
    if (interrupted()) throw ended('cancelled', program, 'was ended: interrupted', cause);
    if (late.aborted) {
      throw ended('deadline_exceeded', program, `took longer than ${deadline_ms} ms`, cause);
    }
    const errno = errnoOf(cause);
    if (errno === 'ENOENT') throw ended('not_found', program, 'is not installed', cause);
    if (errno === 'EACCES' || errno === 'EPERM') {
      throw ended('permission_denied', program, 'may not be run by this user', cause);
    }
    throw ended('internal', program, `could not be run: ${errno ?? 'unknown'}`, cause);
  }
};

function ended(
  code: 'cancelled' | 'deadline_exceeded' | 'not_found' | 'permission_denied' | 'internal',
  program: string,
  how: string,
  cause?: unknown,
): DaemonError {
  return new DaemonError(code, `${program} ${how}`, { program }, { cause });
}

function collect(stream: NodeJS.ReadableStream, max_bytes: number): () => string {
  const chunks: Buffer[] = [];
  let size = 0;
  stream.on('data', (chunk: Buffer) => {
    if (size < max_bytes) chunks.push(chunk);
    size += chunk.length;
  });
  return () => Buffer.concat(chunks).toString('utf8', 0, max_bytes);
}
