import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { loadSync, type MethodDefinition, type Options } from '@grpc/proto-loader';
import { DaemonError } from '../base/errors.ts';
import { INSTALL_ROOT } from '../base/install-root.ts';
import { isWholeMessage } from './wire-shape.ts';

/**
 * The one way messages look in this program; `npm run proto` makes the types from the same options. 64-bit integers
 * are numbers (a request with an unsafe one is refused), enums their names, bytes Buffers that may be views of the message.
 */
export const LOAD_OPTIONS = {
  keepCase: false,
  longs: Number,
  enums: String,
  defaults: true,
  oneofs: true,
} as const satisfies Options;

/**
 * One method's path and codecs. `decode` and `encode` are the server's side (request in, response out), so a codec
 * can be spread into a UnaryMethod and its kin; the other two are the client's.
 */
export type MethodCodec<Req, Res> = {
  /** `/package.Service/Method`. */
  readonly path: string;
  /** @throws DaemonError `invalid_argument` for bytes that are no such message, and for integers beyond 2^53 - 1. */
  readonly decode: (bytes: Uint8Array) => Req;
  readonly encode: (response: Res) => Uint8Array;
  readonly encodeRequest: (request: Req) => Uint8Array;
  /** @throws DaemonError `protocol_error` for bytes that are no such message. */
  readonly decodeResponse: (bytes: Uint8Array) => Res;
};

/** A service of a proto text; the caller names the types, which `npm run proto` makes in `src/gen/`. */
export interface ServiceCodec {
  /** Throws when the service has no such method: a mistake in the program, found at start. */
  method<Req, Res>(name: string): MethodCodec<Req, Res>;
}

/** The project's proto texts: `proto/` of the install root. */
export const PROTO_DIRECTORY = join(INSTALL_ROOT, 'proto/');

/**
 * Loads a service from a proto text, at start, synchronously (about 20 ms with the parser's own loading).
 * `file` is relative to `directory`; imports are found from there too.
 * @throws DaemonError `internal` when the text or the service is missing, as after a broken installation.
 */
export function loadService(
  file: string,
  service: string,
  directory: string = PROTO_DIRECTORY,
): ServiceCodec {
  const path = `${directory.replace(/\/$/, '')}/${file}`;
  if (!existsSync(path)) {
    throw new DaemonError('internal', `proto text ${file} is missing; reinstall layerswarm`, {
      path,
    });
  }
  const methods = loadSync(path, { ...LOAD_OPTIONS, includeDirs: [directory] })[service];
  if (methods === undefined || 'format' in methods) {
    throw new DaemonError('internal', `proto text ${file} has no service ${service}`, { path });
  }
  const table = methods as Readonly<Record<string, MethodDefinition<object, object>>>;
  return {
    method: <Req, Res>(name: string): MethodCodec<Req, Res> => {
      const definition = table[name];
      if (definition === undefined) {
        throw new DaemonError('internal', `service ${service} has no method ${name}`, { path });
      }
      return codecOf<Req, Res>(definition);
    },
  };
}

function codecOf<Req, Res>(definition: MethodDefinition<object, object>): MethodCodec<Req, Res> {
  const { path } = definition;
  return {
    path,
    decode: (bytes) => {
      if (!isWholeMessage(bytes)) {
        throw new DaemonError('invalid_argument', `malformed request to ${path}`);
      }
      let request: object;
      try {
        request = definition.requestDeserialize(asBuffer(bytes));
      } catch (cause) {
        throw new DaemonError('invalid_argument', `malformed request to ${path}`, {}, { cause });
      }
      refuseUnsafeIntegers(request, path);
      return request as Req;
    },
    encode: (response) => definition.responseSerialize(response as object),
    encodeRequest: (request) => definition.requestSerialize(request as object),
    decodeResponse: (bytes) => {
      try {
        return definition.responseDeserialize(asBuffer(bytes)) as Res;
      } catch (cause) {
        throw new DaemonError(
          'protocol_error',
          `malformed answer of ${path}; are daemon and command of one version?`,
          {},
          { cause },
        );
      }
    },
  };
}

/** protobufjs gives `bytes` fields as slices of what it reads, and only a Buffer's slices are Buffers. */
function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.isBuffer(bytes)
    ? bytes
    : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** Offsets and sizes that a number cannot hold exactly must not be taken for other ones. */
function refuseUnsafeIntegers(value: unknown, path: string): void {
  if (typeof value === 'number') {
    if (Math.abs(value) > Number.MAX_SAFE_INTEGER && Number.isFinite(value)) {
      throw new DaemonError(
        'invalid_argument',
        `request to ${path} holds an integer beyond 2^53 - 1; such sizes and offsets do not exist`,
      );
    }
  } else if (typeof value === 'object' && value !== null && !ArrayBuffer.isView(value)) {
    for (const field of Object.values(value)) refuseUnsafeIntegers(field, path);
  }
}
