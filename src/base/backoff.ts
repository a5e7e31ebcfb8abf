/** Waits between tries of one thing, in ms: the first doubles with each further failure up to the longest. */
export type BackoffConfig = { readonly first_ms: number; readonly longest_ms: number };

/**
 * How long to wait after the `failures`-th failure in a row (1 and up). Half of it is fixed and half is random: what failed
 * together does not come back together.
 */
export function backoff_ms(
  { first_ms, longest_ms }: BackoffConfig,
  failures: number,
  random: () => number = Math.random,
): number {
  // Beyond 30 doublings nothing changes, and a number that grows for months never overflows.
  const full_ms = Math.min(longest_ms, first_ms * 2 ** Math.min(30, Math.max(0, failures - 1)));
  return (full_ms * (1 + random())) / 2;
}
