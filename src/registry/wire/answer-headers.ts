/** What `Content-Range` says (RFC 9110, 14.4), in bytes; `last` is inclusive. */
export type ContentRange = {
  readonly first: number;
  readonly last: number;
  /** Undefined = `*`. */
  readonly size_bytes: number | undefined;
};

/** Longest wait that a server's `Retry-After` may ask of us, in ms: nobody is sent away for a day by one header. */
const RETRY_AFTER_MAX_MS = 300_000;

/** Reads `Content-Range: bytes 0-9/100`. Undefined for anything malformed or contradictory. */
export function parseContentRange(text: string): ContentRange | undefined {
  const match = /^bytes +(\d{1,16})-(\d{1,16})\/(\d{1,16}|\*)$/i.exec(text.trim());
  if (match === null) return undefined;
  const [first, last] = [Number(match[1]), Number(match[2])];
  const size_bytes = match[3] === '*' ? undefined : Number(match[3]);
  const all = [first, last, size_bytes ?? 0];
  if (!all.every(Number.isSafeInteger) || first > last) return undefined;
  if (size_bytes !== undefined && last >= size_bytes) return undefined;
  return { first, last, size_bytes };
}

/** Reads `Retry-After`, seconds or a date, as ms from `now_epoch_ms`; bounded, undefined for nonsense. */
export function parseRetryAfter(text: string, now_epoch_ms: number): number | undefined {
  const trimmed = text.trim();
  if (trimmed.length > 64) return undefined;
  const ms = /^\d+$/.test(trimmed) ? Number(trimmed) * 1000 : Date.parse(trimmed) - now_epoch_ms;
  if (Number.isNaN(ms)) return undefined;
  return Math.min(Math.max(ms, 0), RETRY_AFTER_MAX_MS);
}
