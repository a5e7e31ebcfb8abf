import { once } from 'node:events';
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { DaemonError, errnoOf } from '../base/errors.ts';
import type { Logger } from './logger.ts';
import type { HistogramMetric, MetricRegister } from './register.ts';

/**
 * What the daemon can do for containerd and the peers:
 * `starting` not yet; `alone` serves, no peer is connected and none is missed (none configured, or the first host);
 * `connected` serves, with peers; `degraded` serves, but something named needs an operator; `draining` is going away.
 */
export type Readiness = {
  readonly state: 'starting' | 'alone' | 'connected' | 'degraded' | 'draining';
  /** Why, in a short sentence of ours; never text from a peer. */
  readonly reason?: string;
};

/** Not by an import: that reads every name Node's module exports, among them three that load its whole HTTP client, a fifth of the daemon's start. */
const { createServer } = process.getBuiltinModule('node:http');

/** States in which pulls are not served. Alone and degraded daemons still serve: restarting them would help nobody. */
const NOT_READY: readonly Readiness['state'][] = ['starting', 'draining'];
/** Loop delay beyond which `/healthz` fails. Ordinary work stays below 50 ms; the watchdog acts at 30 s. */
const LAG_MAX_MS = 5_000;
/** Longest a client may take for its request, and an idle connection may stay, in ms. */
const REQUEST_TIMEOUT_MS = 5_000;
/** Scrapers hold one connection each. */
const CONNECTIONS_MAX = 32;
const HEADER_MAX_BYTES = 8 * 1024;

export type EndpointModules = {
  readonly exposition: { text(): Promise<string> };
  readonly readiness: () => Readiness;
  readonly loopLag_ms: () => number;
  readonly register: MetricRegister;
  readonly logger: Logger;
};

export type Address = { readonly host: string; readonly port: number };

type Answer = { readonly status: number; readonly type: string; readonly body: string };

/** `/metrics`, `/healthz` and `/readyz` over HTTP. No authentication: meant for loopback. */
export class OpsEndpoint implements AsyncDisposable {
  readonly #modules: EndpointModules;
  readonly #server: Server;
  readonly #scrapes: HistogramMetric<Record<string, never>>;
  #scrape: Promise<string> | undefined;

  private constructor(modules: EndpointModules) {
    this.#modules = modules;
    this.#scrapes = modules.register.histogram({
      name: 'metrics_scrape_seconds',
      help: 'Time to collect and render the metrics.',
      buckets: [0.005, 0.02, 0.1, 0.5], // A scrape blocks the loop: beyond 20 ms somebody should look.
    });
    this.#server = createServer(
      {
        headersTimeout: REQUEST_TIMEOUT_MS,
        requestTimeout: REQUEST_TIMEOUT_MS,
        keepAliveTimeout: REQUEST_TIMEOUT_MS,
        connectionsCheckingInterval: REQUEST_TIMEOUT_MS,
        maxHeaderSize: HEADER_MAX_BYTES,
      },
      (request, response) => void this.#serve(request, response),
    );
    this.#server.maxConnections = CONNECTIONS_MAX;
  }

  /** Listens. `failed_precondition` when the address is taken, `permission_denied` when it may not be used, `config_invalid` when it is not ours. */
  static async listen(modules: EndpointModules, address: Address): Promise<OpsEndpoint> {
    const endpoint = new OpsEndpoint(modules);
    const server = endpoint.#server;
    try {
      server.listen(address.port, address.host);
      await once(server, 'listening');
    } catch (cause) {
      throw listenError(cause, `${address.host}:${address.port}`);
    }
    // No descriptor for a scraper is no reason to end; the next one may have one.
    server.on('error', (err) => modules.logger.debug({ err }, 'endpoint cannot accept'));
    // A client that vanishes mid-request is no event for us.
    server.on('clientError', (_error, socket) => socket.destroy());
    return endpoint;
  }

  /** The real port, when 0 was asked for. */
  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = once(this.#server, 'close');
    this.#server.close();
    this.#server.closeAllConnections();
    await closed;
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    let answer: Answer;
    try {
      answer = await this.#answer(request);
    } catch (error) {
      this.#modules.logger.error({ err: error }, 'metrics endpoint failed');
      answer = text(500, 'internal error');
    }
    response.writeHead(answer.status, {
      'content-type': answer.type,
      'content-length': Buffer.byteLength(answer.body),
      'cache-control': 'no-store',
    });
    response.end(request.method === 'HEAD' ? undefined : answer.body);
  }

  async #answer(request: IncomingMessage): Promise<Answer> {
    if (request.method !== 'GET' && request.method !== 'HEAD') return text(405, 'use GET');
    const path = (request.url ?? '').split('?')[0];
    if (path === '/metrics') {
      return {
        status: 200,
        type: 'text/plain; version=0.0.4; charset=utf-8',
        body: await this.#metrics(),
      };
    }
    if (path === '/healthz') {
      const lag_ms = Math.round(this.#modules.loopLag_ms());
      return text(lag_ms > LAG_MAX_MS ? 503 : 200, `event loop lag ${lag_ms} ms`);
    }
    if (path === '/readyz') {
      const { state, reason } = this.#modules.readiness();
      const body = reason === undefined ? state : `${state}: ${reason}`;
      return text(NOT_READY.includes(state) ? 503 : 200, body);
    }
    return text(404, 'try /metrics, /healthz or /readyz');
  }

  /** Scrapes at the same time share one rendering. */
  #metrics(): Promise<string> {
    this.#scrape ??= (async () => {
      const start_ms = performance.now();
      try {
        return await this.#modules.exposition.text();
      } finally {
        this.#scrape = undefined;
        this.#scrapes.observe({}, (performance.now() - start_ms) / 1000);
      }
    })();
    return this.#scrape;
  }
}

/** In words, what keeps an address from being listened on; by the system's error code. */
export const LISTEN_FAULTS: Readonly<Record<string, string>> = {
  EADDRINUSE: 'the address is in use',
  EACCES: 'no permission for this port',
  EADDRNOTAVAIL: 'this host does not have the address',
};

function text(status: number, body: string): Answer {
  return { status, type: 'text/plain; charset=utf-8', body: `${body}\n` };
}

function listenError(cause: unknown, address: string): DaemonError {
  const errno = errnoOf(cause) ?? 'unknown error';
  const code =
    errno === 'EADDRINUSE'
      ? 'failed_precondition'
      : errno === 'EACCES'
        ? 'permission_denied'
        : 'config_invalid';
  return new DaemonError(
    code,
    `cannot serve metrics on ${address}: ${LISTEN_FAULTS[errno] ?? errno}; change [metrics] listen`,
    { address, errno },
    { cause },
  );
}
