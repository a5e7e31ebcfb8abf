import type { Clock } from '../../base/clock.ts';
import { DaemonError } from '../../base/errors.ts';
import type { Credential } from '../credentials/credential.ts';
import { ExpiringMap } from '../ground/expiring-map.ts';
import { Secret } from '../ground/secret.ts';
import { orAborted } from '../ground/waiting.ts';
import type { Challenge } from './challenge.ts';
import { exchange, type Limits } from './exchange.ts';
import { hearsayUrl, isLocal } from './hearsay.ts';
import type { Pools, Trust } from './pools.ts';

/** Deadlines of a token request, in ms: it stands before every first request of a pull. */
const LIMITS: Limits = { headers_ms: 5_000, stall_ms: 5_000, total_ms: 10_000 };
/** Largest answer; the longest tokens seen have some 10 KiB. */
const ANSWER_MAX_BYTES = 128 * 1024;
/** Most tokens kept. */
const TOKENS_MAX = 256;
/** How long a token lasts when the server does not say (distribution spec, token authentication), and how much sooner it is renewed, in seconds. */
const DEFAULT_LASTS_S = 60;
const MARGIN_S = 10;
/** Longest a token is kept, in seconds, whatever its server says. */
const LONGEST_S = 3600;

/** Who is to be asked for a token, and for what. */
export type TokenWish = {
  /** The endpoint's address, which spoke the challenge. */
  readonly from: URL;
  /** How the endpoint is trusted; a token server elsewhere gets no client certificate. */
  readonly trust: Trust;
  readonly challenge: Challenge;
  readonly repository: string;
  readonly credential: Credential;
};

/** A token and how long it may be used, in ms. */
export type Token = { readonly value: Secret; readonly lasts_ms: number };

/** Fetches tokens (distribution spec, token authentication) and keeps them until shortly before they expire; one request per token at a time. */
export class Tokens {
  readonly #modules: { readonly clock: Clock; readonly pools: Pools };
  readonly #kept: ExpiringMap<{ readonly token: Token; readonly until_ms: number }>;
  readonly #fetching = new Map<string, Promise<Token>>();

  constructor(modules: { readonly clock: Clock; readonly pools: Pools }) {
    this.#modules = modules;
    this.#kept = new ExpiringMap(modules.clock, TOKENS_MAX);
  }

  /**
   * A token that is in force. `refused` is one that the registry did not take, which is then forgotten. `permission_denied` when the
   * server does not take the credential; the other codes are those of `exchange`.
   */
  async get(wish: TokenWish, refused: Secret | undefined, signal: AbortSignal): Promise<Token> {
    const key = keyOf(wish);
    const now_ms = this.#modules.clock.now_ms();
    const kept = this.#kept.get(key);
    if (kept !== undefined && kept.token.value !== refused) {
      return { value: kept.token.value, lasts_ms: kept.until_ms - now_ms };
    }
    const fetching = this.#fetching.get(key) ?? this.#fetch(wish, key);
    // Others wait for the same token: one who goes away does not end it, its own deadline does.
    return orAborted(fetching, signal);
  }

  #fetch(wish: TokenWish, key: string): Promise<Token> {
    const job = this.#ask(wish)
      .then((token) => {
        const until_ms = this.#modules.clock.now_ms() + token.lasts_ms;
        if (token.lasts_ms > 0) this.#kept.set(key, { token, until_ms }, token.lasts_ms);
        return token;
      })
      .finally(() => this.#fetching.delete(key));
    this.#fetching.set(key, job);
    // Whoever waits hears of a failure; when all have gone nobody does.
    job.catch(() => undefined);
    return job;
  }

  async #ask({ from, trust, challenge, repository, credential }: TokenWish): Promise<Token> {
    const { clock, pools } = this.#modules;
    const realm = challenge.parameters.get('realm');
    if (realm === undefined) throw bad(from, 'asks for a token and does not say from where');
    const url = hearsayUrl(realm, from);
    const is_same = url.origin === from.origin;
    const heard = isLocal(from) ? 'from_loopback' : 'from_network';
    const pool = await pools.of(
      url.origin,
      is_same ? trust : { ...trust, client: [], hearsay: heard },
    );
    const service = challenge.parameters.get('service');
    const scope = challenge.parameters.get('scope') ?? `repository:${repository}:pull`;
    const request = requestOf(url, { service, scope, credential });
    const signal = new AbortController().signal;
    const server = `the token server ${url.origin}`;
    await using answer = await exchange(clock, pool, { ...request, server, signal }, LIMITS);
    if ([400, 401, 403].includes(answer.status)) {
      await answer.discard();
      const message = `${server} does not take the credentials (${credential.name}) for ${repository}`;
      throw new DaemonError('permission_denied', message, { status: answer.status });
    }
    if (answer.status !== 200) {
      await answer.discard();
      const message = `${server} answers ${answer.status}`;
      throw new DaemonError('unavailable', message, { status: answer.status });
    }
    return tokenOf(await answer.bytes(ANSWER_MAX_BYTES), url);
  }
}

function requestOf(
  url: URL,
  wish: { service: string | undefined; scope: string; credential: Credential },
): { method: 'GET' | 'POST'; target: string; headers: Record<string, string>; body?: string } {
  const { service, scope, credential } = wish;
  const fields = { ...(service !== undefined && { service }), scope };
  const headers = { accept: 'application/json', 'accept-encoding': 'identity' };
  if (credential.kind === 'identity_token') {
    const grant = { grant_type: 'refresh_token', client_id: 'layerswarm' };
    const body = { ...grant, ...fields, refresh_token: credential.token.reveal() };
    return {
      method: 'POST',
      target: url.pathname + url.search,
      headers: { ...headers, 'content-type': 'application/x-www-form-urlencoded' },
      body: new URLSearchParams(body).toString(),
    };
  }
  const asked = new URL(url);
  for (const [name, value] of Object.entries(fields)) asked.searchParams.append(name, value);
  const target = asked.pathname + asked.search;
  if (credential.kind === 'anonymous') return { method: 'GET', target, headers };
  return {
    method: 'GET',
    target,
    headers: { ...headers, authorization: basicOf(credential).reveal() },
  };
}

/** A user's name and password as HTTP's Basic scheme sends them. */
export function basicOf({ username, password }: Credential & { kind: 'password' }): Secret {
  const pair = Buffer.from(`${username.reveal()}:${password.reveal()}`, 'utf8');
  return new Secret(`Basic ${pair.toString('base64')}`);
}

function tokenOf(bytes: Buffer, url: URL): Token {
  let value: unknown;
  try {
    value = JSON.parse(bytes.toString('utf8'));
  } catch {
    // The parser's message quotes the answer.
    throw bad(url, 'answers with what is not JSON');
  }
  if (typeof value !== 'object' || value === null) throw bad(url, 'answers without a token');
  const { token, access_token, expires_in } = value as Record<string, unknown>;
  const found = [token, access_token].find((t) => typeof t === 'string' && t !== '');
  if (typeof found !== 'string' || !/^[\x21-\x7e]+$/.test(found)) {
    throw bad(url, 'answers without a token');
  }
  const told_s = typeof expires_in === 'number' && expires_in > 0 ? expires_in : DEFAULT_LASTS_S;
  const lasts_s = Math.min(told_s, LONGEST_S);
  // A short-lived one is used for most of its life, a long-lived one until some seconds before its end.
  return {
    value: new Secret(`Bearer ${found}`),
    lasts_ms: Math.max(lasts_s - MARGIN_S, lasts_s / 2) * 1000,
  };
}

function keyOf({ from, challenge, repository, credential }: TokenWish): string {
  const { parameters } = challenge;
  const asked = ['realm', 'service', 'scope'].map((name) => parameters.get(name) ?? '');
  return JSON.stringify([from.origin, ...asked, repository, credential.name]);
}

function bad(url: URL, what: string): DaemonError {
  return new DaemonError('protocol_error', `${url.origin} ${what}`, { host: url.host });
}
