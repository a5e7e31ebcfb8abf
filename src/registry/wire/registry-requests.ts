import type { Pool } from 'undici';
import type { Clock } from '../../base/clock.ts';
import { DaemonError } from '../../base/errors.ts';
import { DOCKER_HUB } from '../../oci/reference.ts';
import type { Credential } from '../credentials/credential.ts';
import type { Credentials } from '../credentials/credentials.ts';
import { ExpiringMap } from '../ground/expiring-map.ts';
import type { Secret } from '../ground/secret.ts';
import { orAborted } from '../ground/waiting.ts';
import { type Endpoint, endpointUrl, isMirror } from '../places/endpoint.ts';
import { type Challenge, parseChallenges } from './challenge.ts';
import { type Answer, exchange, type Limits } from './exchange.ts';
import { hearsayUrl, isLocal } from './hearsay.ts';
import type { Pools } from './pools.ts';
import { statusFailure } from './status-failure.ts';
import { basicOf, Tokens } from './tokens.ts';

/** Most redirects that are followed: registries make one, mirrors before them another. */
const REDIRECTS_MAX = 5;
const REDIRECTS = [301, 302, 303, 307, 308];
/** Most requests under way or waiting for a connection; beyond that the next is told so at once. */
const REQUESTS_MAX = 128;
/** How long a user's name and password are sent without being asked for again, and a server counts as speaking no TLS, in ms. */
const REMEMBERED_MS = 60_000;
const REMEMBERED_MAX = 256;

/** One GET at an endpoint. */
export type RegistryRequest = {
  readonly repository: string;
  /** `blobs/sha256:…` or `manifests/…`. */
  readonly what: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly limits: Limits;
  readonly signal: AbortSignal;
};

/** An answer to such a request, and how it came about. All of it may be shown. */
export type Served = {
  readonly answer: Answer;
  readonly endpoint: Endpoint;
  /** Name of the credential that was shown. */
  readonly credential: string;
  /** `https://host` of who answered in the end: another one than the endpoint's after a redirect. */
  readonly served_by: string;
  /** The registry's `RateLimit-…` headers, by their names. */
  readonly rate_limit: Readonly<Record<string, string>>;
};

type Shown = { readonly header: Secret | undefined; readonly credential: string };
type Modules = {
  readonly clock: Clock;
  readonly credentials: Credentials;
  readonly pools: Pools;
};

/**
 * Sends requests to endpoints: with the credentials they ask for and no others, and after redirects, where credentials, the endpoint's own headers and
 * its client certificate do not go along.
 */
export class RegistryRequests {
  readonly #modules: Modules;
  readonly #tokens: Tokens;
  readonly #shown: ExpiringMap<Shown>;
  readonly #without_tls: ExpiringMap<true>;
  #under_way = 0;

  constructor(modules: Modules) {
    this.#modules = modules;
    this.#tokens = new Tokens(modules);
    this.#shown = new ExpiringMap(modules.clock, REMEMBERED_MAX);
    this.#without_tls = new ExpiringMap(modules.clock, REMEMBERED_MAX);
  }

  /**
   * Resolves to an answer of status 2xx, which the caller disposes of. Rejects with a `DaemonError` by status (`status-failure.ts`) or as
   * `exchange` and `Tokens` do.
   */
  async open(endpoint: Endpoint, request: RegistryRequest): Promise<Served> {
    if (this.#under_way >= REQUESTS_MAX) {
      throw new DaemonError('unavailable', `${REQUESTS_MAX} requests to registries are under way`);
    }
    this.#under_way++;
    try {
      const plain = { ...endpoint, scheme: 'http', plain_fallback: false } as const;
      if (!endpoint.plain_fallback) return await this.#open(endpoint, request);
      if (this.#without_tls.get(endpoint.host) === true) return await this.#open(plain, request);
      try {
        return await this.#open(endpoint, request);
      } catch (error) {
        // The configuration says "http", or it is loopback: TLS was only tried first.
        if (!(error instanceof DaemonError) || error.facts['no_tls'] !== true) throw error;
        this.#without_tls.set(endpoint.host, true, REMEMBERED_MS);
        return await this.#open(plain, request);
      }
    } finally {
      this.#under_way--;
    }
  }

  async #open(endpoint: Endpoint, request: RegistryRequest): Promise<Served> {
    const key = `${endpointUrl(endpoint)} ${request.repository}`;
    const shown = this.#shown.get(key) ?? { header: undefined, credential: 'anonymous' };
    const first = await this.#send(endpoint, request, shown);
    if (first.answer.status !== 401) return this.#served(first, endpoint, request, shown);
    this.#shown.delete(key);
    const challenges = parseChallenges(first.answer.header('www-authenticate') ?? '');
    await first.answer.discard();
    let refusal: DaemonError | undefined;
    for (const credential of await this.#credentialsFor(endpoint, request)) {
      try {
        const next = await this.#show(endpoint, request, challenges, credential, shown.header);
        if (next === undefined) continue;
        const tried = await this.#send(endpoint, request, next);
        if (tried.answer.status !== 401) {
          this.#shown.set(key, next, next.lasts_ms);
          return await this.#served(tried, endpoint, request, next);
        }
        refusal = this.#failure(tried.answer, endpoint, request);
        await tried.answer.discard();
      } catch (error) {
        if (!(error instanceof DaemonError) || error.code !== 'permission_denied') throw error;
        refusal = error;
      }
    }
    throw refusal ?? this.#failure(first.answer, endpoint, request);
  }

  /** Credentials go by who is asked: a mirror gets its own, never those of the registry it stands for. */
  async #credentialsFor(
    endpoint: Endpoint,
    { repository, signal }: RegistryRequest,
  ): Promise<readonly Credential[]> {
    const registry = endpoint.host === 'registry-1.docker.io' ? DOCKER_HUB : endpoint.host;
    const search = this.#modules.credentials.find({ registry, repository });
    return (await orAborted(search, signal)).credentials;
  }

  /** The header by which a credential is shown; undefined where the challenges have no use for it. */
  async #show(
    endpoint: Endpoint,
    { repository, signal }: RegistryRequest,
    challenges: readonly Challenge[],
    credential: Credential,
    refused: Secret | undefined,
  ): Promise<(Shown & { readonly lasts_ms: number }) | undefined> {
    const challenge = challenges.find(({ scheme }) => scheme === 'bearer');
    if (challenge !== undefined) {
      const from = new URL(endpointUrl(endpoint));
      const trust = { ...endpoint, hearsay: 'none' } as const;
      const wish = { from, trust, challenge, repository, credential };
      const token = await this.#tokens.get(wish, refused, signal);
      return { header: token.value, credential: credential.name, lasts_ms: token.lasts_ms };
    }
    if (credential.kind !== 'password' || !challenges.some(({ scheme }) => scheme === 'basic')) {
      return undefined;
    }
    return { header: basicOf(credential), credential: credential.name, lasts_ms: REMEMBERED_MS };
  }

  async #send(
    endpoint: Endpoint,
    request: RegistryRequest,
    { header, credential }: Shown,
  ): Promise<Omit<Served, 'endpoint'>> {
    const { repository, what, signal, limits } = request;
    const start = new URL(`${endpointUrl(endpoint)}/${repository}/${what}`);
    if (isMirror(endpoint)) start.searchParams.set('ns', endpoint.registry);
    const headers: Record<string, string | string[]> = {};
    for (const { name, value } of endpoint.headers) {
      headers[name] = [...[headers[name] ?? []].flat(), value.reveal()];
    }
    if (header !== undefined) headers['authorization'] = header.reveal();
    let rate_limit: Record<string, string> = {};
    let url = start;
    let is_home = true;
    for (let redirects = 0; ; redirects++) {
      // Who has been sent away comes back without credentials too: another server chose this path.
      is_home &&= url.origin === start.origin;
      const pool = await this.#poolOf(endpoint, url, start);
      const sent = {
        ...(is_home && headers),
        'accept-encoding': 'identity',
        'user-agent': 'layerswarm',
        ...request.headers,
      };
      const server = is_home ? endpointUrl(endpoint) : url.origin;
      const target = url.pathname + url.search;
      const rest = { method: 'GET', headers: sent, server, target, signal } as const;
      const answer = await exchange(this.#modules.clock, pool, rest, limits);
      if (is_home) rate_limit = { ...rate_limit, ...rateLimitOf(answer) };
      const location = answer.header('location');
      if (!REDIRECTS.includes(answer.status) || location === undefined) {
        // Only the registry's own challenge is answered.
        if (answer.status !== 401 || is_home) {
          return { answer, credential, served_by: url.origin, rate_limit };
        }
        await answer.discard();
        throw statusFailure(this.#modules.clock, { answer, server, what });
      }
      await answer.discard();
      if (redirects >= REDIRECTS_MAX) {
        const message = `${endpointUrl(endpoint)} redirects more than ${REDIRECTS_MAX} times`;
        throw new DaemonError('protocol_error', message, { server: endpointUrl(endpoint) });
      }
      url = hearsayUrl(location, url);
    }
  }

  #poolOf(endpoint: Endpoint, url: URL, start: URL): Promise<Pool> {
    const { pools } = this.#modules;
    if (url.origin === start.origin) return pools.of(url.origin, { ...endpoint, hearsay: 'none' });
    const hearsay = isLocal(start) ? 'from_loopback' : 'from_network';
    return pools.of(url.origin, { ...endpoint, client: [], hearsay });
  }

  async #served(
    served: Omit<Served, 'endpoint'>,
    endpoint: Endpoint,
    request: RegistryRequest,
    { credential }: Shown,
  ): Promise<Served> {
    const { answer } = served;
    if (answer.status >= 200 && answer.status < 300) return { ...served, endpoint, credential };
    const failure = this.#failure(answer, endpoint, request);
    await answer.discard();
    throw failure;
  }

  #failure(answer: Answer, endpoint: Endpoint, { repository, what }: RegistryRequest): DaemonError {
    const server = endpointUrl(endpoint);
    return statusFailure(this.#modules.clock, { answer, server, what: `${repository}/${what}` });
  }
}

function rateLimitOf(answer: Answer): Record<string, string> {
  const names = ['ratelimit-limit', 'ratelimit-remaining'];
  return Object.fromEntries(
    names.flatMap((name) => {
      const value = answer.header(name);
      return value === undefined ? [] : [[name, value.slice(0, 120)]];
    }),
  );
}
