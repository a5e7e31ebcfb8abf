import { spawn } from 'node:child_process';
import { DaemonError, errnoOf } from '../base/errors.ts';

/** Bytes of output kept per stream; what a program says beyond that is dropped, its exit code still counts. */
const OUTPUT_MAX_BYTES = 16 * 1024 * 1024;

/** How a program ended. `code` is null when a signal ended it. */
export type ProgramResult = {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
};

/** `deadline_ms`: the program is killed when it takes longer. `input`: what it reads on stdin; nothing by default. */
type ProgramLimits = {
  readonly signal: AbortSignal;
  readonly deadline_ms: number;
  readonly input?: string;
};

/**
 * Runs a program of this host to its end, without a shell. Resolves whatever its exit code is; rejects with
 * `not_found` when there is no such program, `permission_denied` when it may not be run, `deadline_exceeded` when it
 * was killed at its deadline and `cancelled` when the signal ended it.
 */
export type RunProgram = (argv: readonly string[], limits: ProgramLimits) => Promise<ProgramResult>;

/** The real one. Output is UTF-8 and bounded; messages come in English so that they read like our own. */
export const runProgram: RunProgram = async (argv, { signal, deadline_ms, input }) => {
  const [program = '', ...args] = argv;
  const interrupted = (): boolean => signal.aborted;
  if (interrupted()) throw ended('cancelled', program, 'was not started: interrupted');
  const late = AbortSignal.timeout(deadline_ms);
  const child = spawn(program, args, {
    stdio: ['pipe', 'pipe', 'pipe'],
    env: { ...process.env, LC_ALL: 'C' },
    signal: AbortSignal.any([signal, late]),
    killSignal: 'SIGKILL',
  });
  const stdout = collect(child.stdout);
  const stderr = collect(child.stderr);
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

function collect(stream: NodeJS.ReadableStream): () => string {
  const chunks: Buffer[] = [];
  let size = 0;
  stream.on('data', (chunk: Buffer) => {
    if (size < OUTPUT_MAX_BYTES) chunks.push(chunk);
    size += chunk.length;
  });
  return () => Buffer.concat(chunks).toString('utf8', 0, OUTPUT_MAX_BYTES);
}
