import type { Dispatcher, Pool } from 'undici';
import type { Clock } from '../../base/clock.ts';
import { DaemonError, errnoOf } from '../../base/errors.ts';
import { Deadlines } from './deadlines.ts';

/** Deadlines of a request, in ms. */
export type Limits = {
  /** Until the headers of the answer are there, connecting included. */
  readonly headers_ms: number;
  /** Longest silence in a body. */
  readonly stall_ms: number;
  readonly total_ms: number;
};

/** A request on a pool's origin. `headers` may hold secrets: nothing of it is ever printed. */
export type Request = {
  readonly method: 'GET' | 'POST';
  /** Path and query. */
  readonly target: string;
  readonly headers: Readonly<Record<string, string | string[]>>;
  readonly body?: string;
  /** `https://host/v2`: what messages call the other side. Never with a query, which may be signed. */
  readonly server: string;
  readonly signal: AbortSignal;
};

/** Most bytes of a body that nobody wants which are read so that the connection can be used again. */
const DISCARD_MAX_BYTES = 64 * 1024;

/** Failures that mean: the other side does not speak TLS. */
const NO_TLS = new Set([
  'ERR_SSL_WRONG_VERSION_NUMBER',
  'ERR_SSL_PACKET_LENGTH_TOO_LONG',
  'EPROTO',
]);

/** An answer whose headers are here and whose body is not. Dispose it: what is left of the body is given up with its connection. */
export class Answer implements AsyncDisposable {
  readonly status: number;
  readonly #headers: Dispatcher.ResponseData['headers'];
  readonly #body: Dispatcher.ResponseData['body'];
  readonly #deadlines: Deadlines;
  readonly #stall_ms: number;
  readonly #server: string;

  constructor(
    { statusCode, headers, body }: Dispatcher.ResponseData,
    deadlines: Deadlines,
    { server, stall_ms }: { readonly server: string; readonly stall_ms: number },
  ) {
    this.status = statusCode;
    this.#headers = headers;
    this.#body = body;
    this.#deadlines = deadlines;
    this.#stall_ms = stall_ms;
    this.#server = server;
    // A body that is given up fails, which nobody needs to hear.
    body.on('error', () => undefined);
  }

  /** A header by its name in lower case; several lines of it joined by commas. */
  header(name: string): string | undefined {
    const value = this.#headers[name];
    return Array.isArray(value) ? value.join(', ') : value;
  }

  /**
   * The body as it comes. Rejects with the caller's reason, `deadline_exceeded`, or `unavailable` when the connection ends before the body
   * does. Not reading on gives the connection up.
   */
  async *chunks(): AsyncGenerator<Uint8Array, void> {
    const { signal } = this.#deadlines;
    this.#deadlines.step(this.#stall_ms);
    try {
      for await (const chunk of this.#body) {
        this.#deadlines.step(this.#stall_ms);
        yield chunk as Uint8Array;
      }
    } catch (error) {
      if (signal.aborted) throw signal.reason;
      throw failureOf(error, this.#server, 'the answer was cut');
    }
    signal.throwIfAborted();
  }

  /** The whole of a small body. `protocol_error` when it is larger than `max_bytes`. */
  async bytes(max_bytes: number): Promise<Buffer> {
    const parts: Uint8Array[] = [];
    let size = 0;
    for await (const chunk of this.chunks()) {
      size += chunk.length;
      if (size > max_bytes) {
        const message = `${this.#server}: the answer has more than ${max_bytes} bytes`;
        throw new DaemonError('protocol_error', message, { server: this.#server });
      }
      parts.push(chunk);
    }
    return Buffer.concat(parts);
  }

  /** Reads a small rest, so that the connection can be used again; gives up a large one. Never rejects. */
  async discard(): Promise<void> {
    let size = 0;
    try {
      for await (const chunk of this.chunks()) {
        size += chunk.length;
        if (size > DISCARD_MAX_BYTES) break;
      }
    } catch {
      // Whatever is wrong with a body that nobody wants: the next request gets a new connection.
    }
    await this[Symbol.asyncDispose]();
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.#deadlines[Symbol.dispose]();
    this.#body.destroy();
    return Promise.resolve();
  }
}

/**
 * Sends one request and resolves when the headers of its answer are here, whatever its status. Rejects with the caller's reason, or a
 * `DaemonError`: `deadline_exceeded`, `unavailable` (not reached, or cut), `failed_precondition` (its certificate is not trusted, or it
 * speaks no TLS: fact `no_tls`), `protocol_error` (no HTTP, or endless headers).
 */
export async function exchange(
  clock: Clock,
  pool: Pool,
  request: Request,
  limits: Limits,
): Promise<Answer> {
  const { method, target, headers, server, body, signal } = request;
  signal.throwIfAborted();
  const { total_ms, stall_ms } = limits;
  const deadlines = new Deadlines(clock, { what: server, total_ms, signal });
  deadlines.step(limits.headers_ms);
  try {
    const answer = await pool.request({
      ...{ method, path: target, headers, signal: deadlines.signal },
      ...(body !== undefined && { body }),
    });
    return new Answer(answer, deadlines, { server, stall_ms });
  } catch (error) {
    deadlines[Symbol.dispose]();
    if (deadlines.signal.aborted) throw deadlines.signal.reason;
    throw failureOf(error, server, 'it could not be asked');
  }
}

/** Without the cause: undici's errors may hold parts of an answer, and those may hold a token. */
function failureOf(error: unknown, server: string, how: string): DaemonError {
  if (error instanceof DaemonError) return error;
  const errno = errnoOf(error) ?? (error instanceof Error ? error.name : 'unknown');
  const facts = { server, errno };
  if (NO_TLS.has(errno)) {
    const message = `${server}: it does not speak TLS (${errno})`;
    return new DaemonError('failed_precondition', message, { ...facts, no_tls: true });
  }
  if (/CERT|SELF_SIGNED|UNABLE_TO|ALTNAME|^ERR_(TLS|SSL|OSSL)_/.test(errno)) {
    const message = `${server}: no TLS with it (${errno}); name its CA under "ca" in hosts.toml, and certificate and key under "client" where it asks for them`;
    return new DaemonError('failed_precondition', message, facts);
  }
  if (/^HPE_|^HTTPParserError$|HEADERS_OVERFLOW|^UND_ERR_(RES|REQ)_/.test(errno)) {
    return new DaemonError(
      'protocol_error',
      `${server}: it does not keep to HTTP (${errno})`,
      facts,
    );
  }
  if (errno === 'UND_ERR_CONNECT_TIMEOUT') {
    return new DaemonError('deadline_exceeded', `${server}: no connection in time`, facts);
  }
  return new DaemonError('unavailable', `${server}: ${how} (${errno})`, facts);
}
