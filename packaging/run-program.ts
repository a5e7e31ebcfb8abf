import { spawnSync } from 'node:child_process';

/** The slowest step, rpmbuild at full compression, takes about a minute on two cores. */
const DEADLINE_MS = 15 * 60_000;

export type RunOptions = {
  readonly cwd?: string;
  readonly env?: Readonly<Record<string, string>>;
  /** Exit codes that are no failure. */
  readonly allowed?: readonly number[];
};

/**
 * Runs a program to its end and returns what it wrote to stdout and stderr together. Fails with its name, its exit code and the
 * last lines it wrote. The language is C and the time zone UTC: packages may not depend on the builder's.
 */
export function run(argv: readonly [string, ...string[]], options: RunOptions = {}): string {
  const [program, ...args] = argv;
  const { status, signal, error, stdout, stderr } = spawnSync(program, args, {
    encoding: 'utf8',
    timeout: DEADLINE_MS,
    maxBuffer: 64 * 1024 * 1024,
    env: { ...process.env, LC_ALL: 'C', TZ: 'UTC', ...options.env },
    ...(options.cwd !== undefined && { cwd: options.cwd }),
  });
  if (error !== undefined) {
    throw new Error(`${program} cannot be run: ${error.message}`, { cause: error });
  }
  const said = `${stdout}${stderr}`;
  if (status === null || !(options.allowed ?? [0]).includes(status)) {
    const end = said.trimEnd().split('\n').slice(-20).join('\n');
    throw new Error(`${program} ended with ${status ?? signal ?? 'nothing'}:\n${end}`);
  }
  return said;
}

/** True when a program of this name is on the PATH. */
export function present(program: string): boolean {
  return spawnSync('sh', ['-c', 'command -v "$1"', 'sh', program]).status === 0;
}
