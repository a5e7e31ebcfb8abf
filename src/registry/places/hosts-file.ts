import { posix } from 'node:path';
import { parse } from 'smol-toml';
import { DaemonError } from '../../base/errors.ts';
import { goDurationMs } from '../ground/go-duration.ts';
import { Secret } from '../ground/secret.ts';
import {
  type ClientPair,
  defaultEndpoint,
  type Endpoint,
  endpointOf,
  type EndpointSettings,
  PLAIN_SETTINGS,
} from './endpoint.ts';

/** Most hosts of one file that are used. */
const MAX_HOSTS = 32;
/** Words of `capabilities`; of them only the first two matter here. */
const CAPABILITIES = ['pull', 'resolve', 'push', 'referrers'];
type Table = Readonly<Record<string, unknown>>;

/**
 * Reads a `hosts.toml` of containerd (docs/hosts.md): its hosts in the order of the file, then `server`, or the registry itself where
 * none is named. `config_invalid` names the file and what is wrong in it.
 */
export function parseHostsFile(text: string, file: string, registry: string): readonly Endpoint[] {
  const table = parseTable(text, file);
  const hosts = table['host'] ?? {};
  if (!isTable(hosts)) throw bad(file, '"host" is no table');
  const endpoints = Object.entries(hosts)
    .slice(0, MAX_HOSTS)
    .map(([server, settings]) => {
      if (!isTable(settings)) throw bad(file, `the host "${shown(server)}" is no table`);
      return endpointOf(settingsOf(server, settings, { file, registry }));
    });
  return [...endpoints, serverOf(table, { file, registry })];
}

type Place = { readonly file: string; readonly registry: string };

function serverOf(table: Table, place: Place): Endpoint {
  const { server } = table;
  if (typeof server === 'string' && server !== '') {
    return endpointOf(settingsOf(server, table, place));
  }
  // Without a server the settings of TLS beside it are those of the registry itself.
  const { ca, client, skip_verify } = tlsOf(table, place.file);
  return defaultEndpoint(place.registry, place.file, { ca, client, skip_verify });
}

function settingsOf(server: string, table: Table, { file, registry }: Place): EndpointSettings {
  const url = URL.parse(server.includes('://') ? server : `https://${server}`);
  const scheme = url?.protocol.slice(0, -1);
  if (url === null || (scheme !== 'http' && scheme !== 'https')) {
    throw bad(file, `"${shown(server)}" is no address of a host`);
  }
  const { pull, resolve } = capabilitiesOf(table, file);
  const path = posix.normalize(url.pathname).replace(/\/$/, '');
  const is_whole = table['override_path'] === true || path.endsWith('/v2');
  return {
    ...PLAIN_SETTINGS,
    ...{ registry, scheme, pull, resolve, told_by: file },
    host: url.host,
    path: is_whole ? path : `${path}/v2`,
    ...tlsOf(table, file),
    headers: headersOf(table, file),
    dial_timeout_ms: durationOf(table, file),
  };
}

function tlsOf(
  table: Table,
  file: string,
): Pick<EndpointSettings, 'ca' | 'client' | 'skip_verify'> {
  const { ca = [], client = [], skip_verify } = table;
  const absolute = (path: string): string => posix.resolve(posix.dirname(file), path);
  const certificates = typeof ca === 'string' ? [ca] : ca;
  if (!isStrings(certificates)) throw bad(file, '"ca" is neither a path nor a list of paths');
  if (skip_verify !== undefined && typeof skip_verify !== 'boolean') {
    throw bad(file, '"skip_verify" is neither true nor false');
  }
  const pairs = (Array.isArray(client) ? (client as unknown[]) : [client]).map((pair) =>
    typeof pair === 'string' ? [pair, pair] : pair,
  );
  return {
    ca: certificates.map(absolute),
    client: pairs.map((pair): ClientPair => {
      const [cert, key] = isStrings(pair) && pair.length === 2 ? pair : [];
      if (cert === undefined || key === undefined) {
        throw bad(file, '"client" holds neither paths nor pairs of paths');
      }
      return { cert: absolute(cert), key: absolute(key) };
    }),
    skip_verify,
  };
}

function capabilitiesOf(table: Table, file: string): Pick<Endpoint, 'pull' | 'resolve'> {
  const { capabilities = [] } = table;
  if (!isStrings(capabilities)) throw bad(file, '"capabilities" is no list of words');
  const words = capabilities.map((word) => word.toLowerCase());
  const unknown = words.find((word) => !CAPABILITIES.includes(word));
  if (unknown !== undefined) throw bad(file, `there is no capability "${shown(unknown)}"`);
  const may = (word: string): boolean => words.length === 0 || words.includes(word);
  return { pull: may('pull'), resolve: may('resolve') };
}

function headersOf(table: Table, file: string): Endpoint['headers'] {
  const { header = {} } = table;
  if (!isTable(header)) throw bad(file, '"header" is no table');
  return Object.entries(header).flatMap(([name, value]) => {
    const values = typeof value === 'string' ? [value] : value;
    // The value may be a secret: messages have the name only.
    const is_good =
      isStrings(values) && values.every((v) => !/[^\t\x20-\x7e\x80-\xff]/.test(v)) && isToken(name);
    if (!is_good) throw bad(file, `the header "${shown(name)}" cannot be sent`);
    return values.map((v) => ({ name: name.toLowerCase(), value: new Secret(v) }));
  });
}

function durationOf(table: Table, file: string): number | undefined {
  const text = table['dial_timeout'];
  if (text === undefined || text === '') return undefined;
  const duration_ms = typeof text === 'string' ? goDurationMs(text) : undefined;
  if (duration_ms === undefined) throw bad(file, '"dial_timeout" is no duration such as "5s"');
  return duration_ms;
}

function parseTable(text: string, file: string): Table {
  try {
    return parse(text);
  } catch {
    // The parser's message quotes the text, and a header in it may be a secret.
    throw bad(file, 'it is not TOML');
  }
}

function bad(file: string, why: string): DaemonError {
  return new DaemonError('config_invalid', `${file} cannot be used: ${why}`, { file });
}

/** A host may come with a password in it (`https://user:password@host`), which nobody may see. */
function shown(text: string): string {
  return text.replace(/\/\/[^/]*@/, '//[secret]@').slice(0, 120);
}

function isToken(name: string): boolean {
  return /^[!#$%&'*+.^_`|~\w-]+$/.test(name);
}

function isTable(value: unknown): value is Table {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isStrings(value: unknown): value is readonly string[] {
  return Array.isArray(value) && value.every((v) => typeof v === 'string');
}
