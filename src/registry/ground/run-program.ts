/**
 * Runs a program to its end, without a shell, its input on stdin. Resolves whatever the exit code is; rejects with a `DaemonError` when it
 * cannot be run or passes its deadline. The roof hands in the host room's.
 */
export type RunProgram = (
  argv: readonly string[],
  limits: {
    readonly signal: AbortSignal;
    readonly deadline_ms: number;
    readonly input?: string;
    /** Added to this process's own environment. */
    readonly environment?: Readonly<Record<string, string>>;
    /** Most bytes kept of each output stream. */
    readonly output_max_bytes?: number;
  },
) => Promise<{ readonly code: number | null; readonly stdout: string }>;
