/** Time as the rooms see it. Tests drive a fake one; nothing else in the product may call `setTimeout` to wait. */
export interface Clock {
  /** Monotonic milliseconds with fractions. Only differences mean anything. */
  now_ms(): number;
  /** Wall clock in nanoseconds since the epoch. */
  wall_ns(): bigint;
  /** A signal that aborts after `ms`. Rejections carry a `TimeoutError`. */
  timeout(ms: number): AbortSignal;
  /** Resolves after `ms`; rejects with the signal's reason when it aborts first. */
  sleep(ms: number, options?: { signal?: AbortSignal }): Promise<void>;
}

/** Wall minus monotonic clock. Node read both to the microsecond when the process began. */
let anchor_ns =
  BigInt(Math.floor((performance.timeOrigin + performance.now()) * 1000)) * 1000n -
  process.hrtime.bigint();

/**
 * Wall clock with nanosecond digits. `Date.now()` has whole milliseconds only, and containerd's conformance suite
 * compares our timestamps with Go's nanosecond clock on the same host, so the monotonic clock supplies the digits
 * below a millisecond and `Date.now()` corrects it whenever the two disagree by more than one.
 */
function wall_ns(): bigint {
  const date_ns = BigInt(Date.now()) * 1_000_000n;
  const mono_ns = process.hrtime.bigint();
  const lag_ns = date_ns - (mono_ns + anchor_ns);
  // Too slow: true time is at least the millisecond that has begun. Too fast: it is less than the next one.
  if (lag_ns > 0n) anchor_ns += lag_ns;
  else if (lag_ns < -999_999n) anchor_ns += lag_ns + 999_999n;
  return mono_ns + anchor_ns;
}

/** The machine's own clock. */
export const systemClock: Clock = {
  now_ms: () => performance.now(),
  wall_ns,
  timeout: (ms) => AbortSignal.timeout(ms),
  sleep: (ms, { signal } = {}) =>
    new Promise((resolve, reject) => {
      if (signal?.aborted) {
        reject(signal.reason as Error);
        return;
      }
      const onAbort = (): void => {
        clearTimeout(timer);
        reject(signal?.reason as Error);
      };
      const timer = setTimeout(() => {
        signal?.removeEventListener('abort', onAbort);
        resolve();
      }, ms);
      signal?.addEventListener('abort', onAbort, { once: true });
    }),
};
