/** Go's units of time that stand in configurations, in ms. */
const UNITS_MS: Readonly<Record<string, number>> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000 };

/** Go's way to write a duration (`12h`, `1h30m`, `0s`) in ms; undefined for what is none. */
export function goDurationMs(text: string): number | undefined {
  if (text.length > 64 || !/^(\d+(\.\d+)?(ms|s|m|h))+$/.test(text)) return undefined;
  return [...text.matchAll(/(\d+(?:\.\d+)?)(ms|s|m|h)/g)].reduce(
    (sum, [, number, unit]) => sum + Number(number) * UNITS_MS[unit!]!,
    0,
  );
}
