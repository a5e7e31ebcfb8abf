import { isIP } from 'node:net';
import * as z from 'zod';

/** What the reference, the man page and the error messages tell about one key. */
export type KeyDoc = {
  /** Meaning and unit, one or more whole sentences. */
  readonly doc: string;
  /** What a good value looks like, as the end of the sentence "expected …". */
  readonly expected: string;
};

/** Longest path a unix socket address can hold (`sun_path` less its final zero byte). */
const SOCKET_PATH_MAX_BYTES = 107;

type Integer = {
  readonly default: number;
  readonly min?: number;
  readonly max?: number;
  readonly doc: string;
};

/** A whole number of `unit` within bounds; `unit` also stands in the key's name. */
function integer(
  unit: string,
  { default: value, min = 0, max = Number.MAX_SAFE_INTEGER, doc }: Integer,
) {
  const range = max === Number.MAX_SAFE_INTEGER ? `from ${min} up` : `from ${min} to ${max}`;
  return z
    .int()
    .min(min)
    .max(max)
    .default(value)
    .meta({ doc, expected: `a whole number ${unit === '' ? '' : `of ${unit} `}${range}` });
}

/** A size in bytes. */
export const bytes = (key: Integer) => integer('bytes', key);
/** A time in ms, at most one day. */
export const milliseconds = (key: Integer) => integer('milliseconds', { max: 86_400_000, ...key });
/** A plain number of things. */
export const count = (key: Integer) => integer('', key);
/** A rate in bytes per second. */
export const bytesPerSecond = (key: Integer) => integer('bytes per second', key);

/** A switch, named for what it turns on. */
export const flag = (value: boolean, doc: string) =>
  z.boolean().default(value).meta({ doc, expected: 'true or false' });

/** One word of a closed list. */
export function choice<const T extends readonly [string, ...string[]]>(
  values: T,
  value: T[number],
  doc: string,
) {
  return z
    .enum(values)
    .default(value)
    .meta({ doc, expected: `one of ${values.map((v) => `"${v}"`).join(', ')}` });
}

/** An absolute path; '' only where that is the default and means "derive it". */
export const path = (value: string, doc: string) =>
  z
    .string()
    .refine((p) => (p === '' && value === '') || (p.startsWith('/') && !p.includes('\0')))
    .default(value)
    .meta({ doc, expected: value === '' ? 'an absolute path, or ""' : 'an absolute path' });

/** A path short enough for a unix socket address. */
export const socketPath = (value: string, doc: string) =>
  z
    .string()
    .refine((p) => p.startsWith('/') && Buffer.byteLength(p) <= SOCKET_PATH_MAX_BYTES)
    .default(value)
    .meta({ doc, expected: `an absolute path of at most ${SOCKET_PATH_MAX_BYTES} bytes` });

/** A short name without spaces; '' = none. */
export const label = (doc: string) =>
  z
    .string()
    .regex(/^[A-Za-z0-9._-]{0,63}$/)
    .default('')
    .meta({ doc, expected: 'at most 63 letters, digits, dots, dashes or underscores, or ""' });

/** A port; 0 lets the kernel pick one. */
export const port = (value: number, doc: string) =>
  z.int().min(0).max(65_535).default(value).meta({ doc, expected: 'a port from 0 to 65535' });

/** Host and port of `host:port`, an IPv6 host in brackets; undefined when the string is none. */
export function splitHostPort(text: string): { host: string; port: number } | undefined {
  const match = /^(?:\[([0-9A-Fa-f:.]+)\]|([^\s:/[\]]+)):(\d{1,5})$/.exec(text);
  const host = match?.[1] ?? match?.[2];
  const number = Number(match?.[3]);
  if (host === undefined || !(number <= 65_535)) return undefined;
  if (match?.[1] !== undefined && isIP(host) !== 6) return undefined;
  return { host, port: number };
}

/** A TCP listen address; '' = do not listen. */
export const listenOrOff = (value: string, doc: string) =>
  z
    .string()
    .refine((s) => s === '' || splitHostPort(s) !== undefined)
    .default(value)
    .meta({ doc, expected: '"address:port" (an IPv6 address in brackets), or "" for none' });

const isBootstrap = (s: string) => s.startsWith('/') || (splitHostPort(s)?.port ?? 0) > 0;

/** Where to look for the first peers. */
export const bootstrapList = (doc: string) =>
  z.array(z.string().max(512).refine(isBootstrap)).max(256).default([]).meta({
    doc,
    expected: 'at most 256 strings "host:port" or multiaddrs such as "/ip4/…/udp/…/quic-v1"',
  });

/** Local addresses to bind. */
export const addressList = (value: string[], doc: string) =>
  z
    .array(z.string().refine((s) => isIP(s) !== 0))
    .min(1)
    .max(16)
    .default(value)
    .meta({ doc, expected: 'one to 16 IP addresses of this host, or "0.0.0.0" and "::"' });

/** A non-empty set of words of a closed list; the order counts. */
export function choiceList<const T extends readonly [string, ...string[]]>(
  values: T,
  value: T[number][],
  doc: string,
) {
  const element = z.enum(values);
  return z
    .array(element)
    .min(1)
    .refine((list) => new Set(list).size === list.length)
    .default(value as z.output<typeof element>[])
    .meta({ doc, expected: `some of ${values.map((v) => `"${v}"`).join(', ')}, each once` });
}

/** Absolute paths, in the order in which they are looked at. */
export const pathList = (value: string[], doc: string) =>
  z
    .array(z.string().refine((p) => p.startsWith('/') && !p.includes('\0')))
    .max(32)
    .default(value)
    .meta({ doc, expected: 'at most 32 absolute paths' });

/** Registries by host and port. */
export const registryList = (doc: string) =>
  z
    .array(z.string().refine((s) => (splitHostPort(s)?.port ?? 0) > 0))
    .max(64)
    .default([])
    .meta({ doc, expected: 'at most 64 strings "host:port"' });
