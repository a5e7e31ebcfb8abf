const RFC3339 = /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)$/;

/** Nanoseconds since the epoch as Go's RFC3339Nano (trailing zeros dropped), in UTC. */
export function formatTime(wall_ns: bigint): string {
  const second = new Date(Number(wall_ns / 1_000_000_000n) * 1000).toISOString().slice(0, 19);
  const digits = String(wall_ns % 1_000_000_000n)
    .padStart(9, '0')
    .replace(/0+$/, '');
  return digits === '' ? `${second}Z` : `${second}.${digits}Z`;
}

/** Reads what Go's time.MarshalText wrote; undefined for anything else. */
export function parseTime(text: string): bigint | undefined {
  const match = RFC3339.exec(text.trim());
  if (match === null) return undefined;
  const [, second, digits, zone] = match;
  const ms = Date.parse(`${second}${zone}`);
  if (!Number.isFinite(ms)) return undefined;
  return BigInt(ms) * 1_000_000n + BigInt((digits ?? '').padEnd(9, '0'));
}
