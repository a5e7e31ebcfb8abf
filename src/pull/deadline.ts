import type { Clock } from '../base/clock.ts';
import { DaemonError } from '../base/errors.ts';

/** The promise, or the signal's reason if that comes first. What is left behind may fail unheard. */
export async function untilAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  const aborted = Promise.withResolvers<never>();
  const onAbort = (): void => aborted.reject(signal.reason as Error);
  promise.catch(() => undefined);
  if (signal.aborted) onAbort();
  else signal.addEventListener('abort', onAbort, { once: true });
  try {
    return await Promise.race([promise, aborted.promise]);
  } finally {
    signal.removeEventListener('abort', onAbort);
  }
}

/** Runs `work` with a signal that aborts after `ms`: rejects with `deadline_exceeded`, or with the reason of `signal`. Leaves no timer. */
export async function within<T>(
  clock: Clock,
  ms: number,
  signal: AbortSignal,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const end = new AbortController();
  const both = AbortSignal.any([signal, end.signal]);
  const late = new DaemonError('deadline_exceeded', `no answer within ${ms} ms`);
  clock.sleep(ms, { signal: both }).then(
    () => end.abort(late),
    () => undefined,
  );
  try {
    return await untilAborted(work(both), both);
  } finally {
    end.abort();
  }
}

/**
 * As `within`, but the time runs only while its source is silent: what `heard_ms` says is life. Ends after `longest_ms` in any case.
 */
export async function withinSilence<T>(
  clock: Clock,
  patience: {
    readonly silent_ms: number;
    readonly longest_ms: number;
    readonly heard_ms: () => number;
  },
  signal: AbortSignal,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const { silent_ms, longest_ms, heard_ms } = patience;
  const begun_ms = clock.now_ms();
  const due_ms = (): number =>
    Math.min(Math.max(begun_ms, heard_ms()) + silent_ms, begun_ms + longest_ms);
  const end = new AbortController();
  const both = AbortSignal.any([signal, end.signal]);
  const watch = async (): Promise<void> => {
    for (let left = due_ms() - clock.now_ms(); left > 0; left = due_ms() - clock.now_ms()) {
      if (!(await slept(clock, left, both))) return;
    }
    end.abort(new DaemonError('deadline_exceeded', `no answer, and nothing for ${silent_ms} ms`));
  };
  void watch();
  try {
    return await untilAborted(work(both), both);
  } finally {
    end.abort();
  }
}

/** Sleeps; true when the time ran out, false when the signal fired. */
export async function slept(clock: Clock, ms: number, signal: AbortSignal): Promise<boolean> {
  try {
    await clock.sleep(ms, { signal });
    return true;
  } catch {
    return false; // the only way a sleep fails is its signal
  }
}
