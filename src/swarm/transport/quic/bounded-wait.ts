import { AbortError } from '@libp2p/interface';

/**
 * `promise`, unless `signal` aborts first: then `late` receives the value should it still arrive, because the native
 * calls cannot be cancelled. Rejects with `reason()` or, when the caller gave none, libp2p's AbortError.
 */
export function orAbort<T>(
  promise: Promise<T>,
  signal: AbortSignal,
  late: (value: T) => void,
  reason: () => Error = () => new AbortError(),
): Promise<T> {
  return new Promise((resolve, reject) => {
    let waiting = true;
    const onAbort = (): void => {
      waiting = false;
      reject(reason());
    };
    if (signal.aborted) onAbort();
    else signal.addEventListener('abort', onAbort, { once: true });
    promise.then(
      (value) => {
        signal.removeEventListener('abort', onAbort);
        if (waiting) resolve(value);
        else late(value);
      },
      (error: unknown) => {
        signal.removeEventListener('abort', onAbort);
        reject(error instanceof Error ? error : new Error(String(error)));
      },
    );
  });
}
