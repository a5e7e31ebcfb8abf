import { getCACertificates } from 'node:tls';
import { Pool } from 'undici';
import type { Clock } from '../../base/clock.ts';
import { DaemonError } from '../../base/errors.ts';
import { readSmallFile } from '../ground/small-file.ts';
import type { Endpoint } from '../places/endpoint.ts';
import { guardedLookup } from './hearsay.ts';

/** Most connections to one origin; as many requests as a source takes at once. */
export const CONNECTIONS_MAX = 4;
/** Most origins with connections at a time: some registries, their storage and their token servers. */
const POOLS_MAX = 32;
/** A pool is renewed after this long, in ms, and so are the certificates it was made with. */
const POOL_AGE_MS = 600_000;
/** How long a connection without work is kept, in ms; storage services close theirs after some 5 to 60 s. */
const KEEP_ALIVE_MS = 15_000;
/** Longest a connection may take to come up, TLS included, in ms. */
const CONNECT_MS = 5_000;
/** Most bytes of an answer's headers. */
const HEADERS_MAX_BYTES = 16 * 1024;

/** How an origin is spoken to. */
export type Trust = Pick<Endpoint, 'ca' | 'client' | 'skip_verify' | 'dial_timeout_ms'> & {
  /** Somebody else named it: some addresses are not asked. `from_loopback`: a server on loopback did. */
  readonly hearsay: 'none' | 'from_loopback' | 'from_network';
};

type Entry = { readonly pool: Promise<Pool>; readonly made_ms: number };

/**
 * Keeps connections, a few per origin, for all requests of the process. A pool belongs to an origin *and* to how it is trusted: a connection
 * with somebody's client certificate serves nobody else.
 */
export class Pools implements AsyncDisposable {
  readonly #clock: Clock;
  readonly #entries = new Map<string, Entry>();
  #system: string[] | undefined;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** The pool of an origin. `config_invalid` or `permission_denied` when a certificate file cannot be used. */
  async of(origin: string, trust: Trust): Promise<Pool> {
    const { ca, client, skip_verify, hearsay, dial_timeout_ms } = trust;
    const key = JSON.stringify([origin, ca, client, skip_verify, hearsay, dial_timeout_ms]);
    const now_ms = this.#clock.now_ms();
    const known = this.#entries.get(key);
    if (known !== undefined && known.made_ms + POOL_AGE_MS > now_ms) {
      this.#entries.delete(key);
      this.#entries.set(key, known);
      return known.pool;
    }
    this.#retire(key);
    const [oldest] = this.#entries.keys();
    if (this.#entries.size >= POOLS_MAX && oldest !== undefined) this.#retire(oldest);
    const entry = { pool: this.#make(origin, trust), made_ms: now_ms };
    this.#entries.set(key, entry);
    // A file that cannot be read is looked at again at the next request.
    entry.pool.catch(() => {
      if (this.#entries.get(key) === entry) this.#entries.delete(key);
    });
    return entry.pool;
  }

  /** Ends every connection, also those with a request on them. */
  async [Symbol.asyncDispose](): Promise<void> {
    const pools = await Promise.allSettled([...this.#entries.values()].map(({ pool }) => pool));
    this.#entries.clear();
    for (const made of pools) if (made.status === 'fulfilled') await made.value.destroy();
  }

  /** What is under way on it ends in peace. */
  #retire(key: string): void {
    const entry = this.#entries.get(key);
    this.#entries.delete(key);
    entry?.pool.then((pool) => pool.close()).catch(() => undefined);
  }

  async #make(origin: string, trust: Trust): Promise<Pool> {
    const { hearsay } = trust;
    const timeout = trust.dial_timeout_ms ?? CONNECT_MS;
    return new Pool(origin, {
      connections: CONNECTIONS_MAX,
      pipelining: 1,
      // One connection of HTTP/2 would be one TCP stream for all pieces, and a stalled one stalls them all.
      allowH2: false,
      maxHeaderSize: HEADERS_MAX_BYTES,
      keepAliveTimeout: KEEP_ALIVE_MS,
      keepAliveMaxTimeout: KEEP_ALIVE_MS,
      // The deadlines are ours (`exchange.ts`); undici's count in half seconds.
      headersTimeout: 0,
      bodyTimeout: 0,
      connect: {
        timeout,
        ...(origin.startsWith('https:') && (await this.#tls(trust))),
        ...(hearsay !== 'none' && { lookup: guardedLookup(hearsay === 'from_loopback') }),
      },
    });
  }

  async #tls({ ca, client, skip_verify }: Trust) {
    // The system's, as containerd trusts; where there are none, those that came with Node.
    this.#system ??= getCACertificates('system');
    const system = this.#system.length > 0 ? this.#system : getCACertificates('bundled');
    return {
      rejectUnauthorized: !skip_verify,
      ca: [...system, ...(await Promise.all(ca.map(required)))],
      cert: await Promise.all(client.map(({ cert }) => required(cert))),
      key: await Promise.all(client.map(({ key }) => required(key))),
    };
  }
}

async function required(file: string): Promise<string> {
  const text = await readSmallFile(file);
  if (text !== undefined) return text;
  throw new DaemonError('config_invalid', `the certificate or key ${file} is not there`, { file });
}
