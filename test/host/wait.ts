// Waiting for a state, never for a time.
import { pause } from './lab/residue.ts';

/** Longest wait for a state unless told otherwise, in ms. */
const DEADLINE_MS = 30_000;

/**
 * Polls `probe` until it gives something other than `undefined` and resolves to that; a probe that throws counts as
 * "not yet". Rejects at the deadline with `what` and what the probe said last.
 */
export async function until<T>(
  what: string,
  probe: () => Promise<T | undefined> | T | undefined,
  options: { readonly deadline_ms?: number; readonly every_ms?: number } = {},
): Promise<T> {
  const { deadline_ms = DEADLINE_MS, every_ms = 25 } = options;
  const deadline = performance.now() + deadline_ms;
  for (;;) {
    let last: unknown;
    try {
      const value = await probe();
      if (value !== undefined) return value;
    } catch (error) {
      last = error;
    }
    if (performance.now() > deadline) {
      const why = last === undefined ? {} : { cause: last };
      throw new Error(`${what}: not within ${deadline_ms} ms`, why);
    }
    await pause(every_ms);
  }
}

/** `until` for a condition. */
export async function untilTrue(
  what: string,
  probe: () => Promise<boolean> | boolean,
  options: { readonly deadline_ms?: number; readonly every_ms?: number } = {},
): Promise<void> {
  await until(what, async () => ((await probe()) ? true : undefined), options);
}
