import type { Route, Routes } from '../routes.ts';
import type { ServerStreamMethod } from '../service.ts';
import { ConnectionError, H2_CODE } from './frames.ts';
import { HpackError } from './hpack-error.ts';
import { HeaderListTooLarge, type HeaderField, HpackDecoder, INITIAL_TABLE_SIZE } from './hpack.ts';

/** Header blocks on the wire and header lists decoded may have this size; gRPC clients send a few hundred bytes. */
export const MAX_HEADER_BYTES = 65_536;
/** Distinct blocks remembered: one per method, namespace and client in use; calls with deadlines make new ones. */
const MAX_REMEMBERED_BLOCKS = 256;
/** Longer blocks are decoded each time, which bounds what is remembered to 256 KiB. */
const MAX_REMEMBERED_BYTES = 1024;
/** A namespace is shown in lists and logs at most. */
const MAX_NAMESPACE_LENGTH = 256;

type Immediate = NonNullable<ServerStreamMethod<unknown, unknown>['immediate']>;

/** What the server needs of a request's headers. */
export type RequestHead = {
  readonly path: string;
  /** Undefined for a method that no door offers. */
  readonly route: Route | undefined;
  readonly namespace: string;
  readonly timeout_ms: number | undefined;
  /** The method's hot path, where it has one and no deadline is to be watched. */
  readonly immediate: Immediate | undefined;
  /** Not gRPC: the HTTP status that says so. */
  readonly refuse_http: number | undefined;
  /** A request that HTTP/2 itself forbids (RFC 9113, 8.1.1). */
  readonly malformed: boolean;
};

const UNIT_MS: Readonly<Record<string, number>> = {
  H: 3_600_000,
  M: 60_000,
  S: 1000,
  m: 1,
  u: 1e-3,
  n: 1e-6,
};

/** `grpc-timeout` in ms, undefined for what is no such value (then there is no deadline). */
export function parseGrpcTimeout(value: string): number | undefined {
  const match = /^(\d{1,8})([HMSmun])$/.exec(value);
  return match === null ? undefined : Number(match[1]) * UNIT_MS[match[2]!]!;
}

/**
 * Header blocks of one connection to request heads. Our SETTINGS forbid a dynamic table, so that, once the client has
 * acknowledged them, a block means the same list whenever it comes, and a bounded map from block to head answers for
 * nearly all of them.
 */
export class HeadDecoder {
  readonly #routes: Routes;
  readonly #hpack = new HpackDecoder({ maxList_bytes: MAX_HEADER_BYTES });
  readonly #remembered = new Map<string, RequestHead>();
  #tableLimit = INITIAL_TABLE_SIZE;

  constructor(modules: { readonly routes: Routes }) {
    this.#routes = modules.routes;
  }

  /** The client acknowledged SETTINGS_HEADER_TABLE_SIZE 0. */
  forbidTable(): void {
    this.#tableLimit = 0;
    this.#hpack.tableLimit = 0;
  }

  /** @throws ConnectionError when the block cannot be decoded, or only at unreasonable cost */
  decode(bytes: Buffer, start: number, end: number): RequestHead {
    if (this.#tableLimit > 0 || end - start > MAX_REMEMBERED_BYTES) {
      return this.#decode(bytes, start, end);
    }
    const key = bytes.toString('latin1', start, end);
    const known = this.#remembered.get(key);
    if (known !== undefined) return known;
    const head = this.#decode(bytes, start, end);
    if (this.#remembered.size >= MAX_REMEMBERED_BLOCKS) {
      for (const oldest of this.#remembered.keys()) {
        this.#remembered.delete(oldest);
        break;
      }
    }
    this.#remembered.set(key, head);
    return head;
  }

  #decode(bytes: Buffer, start: number, end: number): RequestHead {
    try {
      return headOf(this.#hpack.decode(bytes, start, end), this.#routes);
    } catch (error) {
      if (error instanceof HpackError) {
        throw new ConnectionError(H2_CODE.compression_error, error.message);
      }
      if (error instanceof HeaderListTooLarge) {
        throw new ConnectionError(H2_CODE.enhance_your_calm, 'header list too large');
      }
      throw error;
    }
  }
}

function headOf(fields: readonly HeaderField[], routes: Routes): RequestHead {
  const pseudo = new Map<string, string>();
  const regular = new Map<string, string>();
  let malformed = false;
  for (const [name, value] of fields) {
    if (name.startsWith(':')) {
      malformed ||= pseudo.has(name) || regular.size > 0;
      pseudo.set(name, value);
    } else {
      malformed ||= name === '' || /[A-Z\0-\x20]/.test(name) || name === 'connection';
      regular.set(name, value);
    }
  }
  const path = pseudo.get(':path') ?? '';
  const method = pseudo.get(':method') ?? '';
  malformed ||= path === '' || method === '' || !pseudo.has(':scheme');
  const timeout = parseGrpcTimeout(regular.get('grpc-timeout') ?? '');
  const route = routes.find(path);
  return {
    path,
    route,
    namespace: (regular.get('containerd-namespace') ?? '').slice(0, MAX_NAMESPACE_LENGTH),
    timeout_ms: timeout,
    immediate:
      route?.method.kind === 'server_stream' && timeout === undefined
        ? route.method.immediate
        : undefined,
    refuse_http: refusal(method, regular.get('content-type')),
    malformed,
  };
}

/** gRPC over HTTP/2 demands 415 for a wrong content type; a missing one is let pass. */
function refusal(method: string, contentType: string | undefined): number | undefined {
  if (method !== 'POST') return 405;
  if (contentType !== undefined && !contentType.startsWith('application/grpc')) return 415;
  return undefined;
}
