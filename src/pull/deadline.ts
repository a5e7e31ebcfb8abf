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

/** Sleeps; true when the time ran out, false when the signal fired. */
export async function slept(clock: Clock, ms: number, signal: AbortSignal): Promise<boolean> {
  try {
    await clock.sleep(ms, { signal });
    return true;
  } catch {
    return false; // the only way a sleep fails is its signal
  }
}
