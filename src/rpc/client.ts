import {
  Client,
  credentials,
  type CallOptions,
  Metadata,
  type ServiceError,
  status as grpcStatus,
} from '@grpc/grpc-js';
import { DaemonError } from '../base/errors.ts';
import { probe } from './open-socket.ts';
import type { MethodCodec } from './proto.ts';
import { fromGrpcStatus } from './status.ts';

/** Answers may be as large as a page of a listing; grpc-js would stop at 4 MiB. */
const MAX_MESSAGE_BYTES = 16 * 1024 * 1024;

/** How a call may end early. Every call names its deadline. */
type CallLimits = {
  readonly deadline_ms: number;
  readonly signal?: AbortSignal;
  /** containerd's namespace, for calls to containerd. */
  readonly namespace?: string;
};

/** Who listens on the socket, for messages: what it is called, and what to do when it does not answer. */
export type SocketOwner = { readonly name: string; readonly start: string };

const OUR_DAEMON: SocketOwner = {
  name: 'daemon',
  start: 'start it with systemctl start layerswarm',
};

/** The command line's connection to the daemon, or to containerd. Failures are DaemonErrors with the code that the daemon threw. */
export interface RpcClient extends Disposable {
  unary<Req, Res>(method: MethodCodec<Req, Res>, request: Req, limits: CallLimits): Promise<Res>;
  /** Answers as they come; leaving the loop cancels the call. `deadline_ms` is for the whole stream. */
  stream<Req, Res>(
    method: MethodCodec<Req, Res>,
    request: Req,
    limits: CallLimits,
  ): AsyncIterable<Res>;
}

/**
 * Connects to a socket, the daemon's unless told otherwise.
 * @throws DaemonError `unavailable` when nobody listens there, `permission_denied` when this user may not ask it
 */
export async function connect(
  socket_path: string,
  owner: SocketOwner = OUR_DAEMON,
): Promise<RpcClient> {
  await demandListener(socket_path, owner);
  return new SocketClient(socket_path, owner);
}

async function demandListener(path: string, { name, start }: SocketOwner): Promise<void> {
  const errno = await probe(path);
  const facts = { path, errno };
  if (errno === 'ENOENT' || errno === 'ECONNREFUSED') {
    throw new DaemonError('unavailable', `${name} not running at ${path}: ${start}`, facts);
  }
  if (errno === 'EACCES' || errno === 'EPERM') {
    throw new DaemonError(
      'permission_denied',
      `no permission to connect to ${path}: run as root`,
      facts,
    );
  }
  if (errno !== undefined) {
    throw new DaemonError('unavailable', `${name} at ${path} does not answer (${errno})`, facts);
  }
}

class SocketClient implements RpcClient {
  readonly #path: string;
  readonly #owner: SocketOwner;
  readonly #client: Client;

  constructor(path: string, owner: SocketOwner) {
    this.#path = path;
    this.#owner = owner;
    this.#client = new Client(`unix:${path}`, credentials.createInsecure(), {
      'grpc.max_receive_message_length': MAX_MESSAGE_BYTES,
      // One client, one connection: without this, clients of one process share theirs and close each other's.
      'grpc.use_local_subchannel_pool': 1,
      // A call to a daemon that is gone fails at once, with what to do; it is not tried again.
      'grpc.enable_retries': 0,
    });
  }

  async unary<Req, Res>(
    method: MethodCodec<Req, Res>,
    request: Req,
    limits: CallLimits,
  ): Promise<Res> {
    limits.signal?.throwIfAborted();
    const { promise, resolve, reject } = Promise.withResolvers<Res | undefined>();
    const call = this.#client.makeUnaryRequest<Req, Res>(
      method.path,
      (message) => Buffer.from(method.encodeRequest(message)),
      (bytes) => method.decodeResponse(bytes),
      request,
      metadataOf(limits),
      optionsOf(limits),
      (error, response) => {
        if (error === null) resolve(response);
        else reject(error);
      },
    );
    const cancel = (): void => call.cancel();
    limits.signal?.addEventListener('abort', cancel, { once: true });
    try {
      return (await promise) as Res;
    } catch (error) {
      throw await this.#explain(error);
    } finally {
      limits.signal?.removeEventListener('abort', cancel);
    }
  }

  async *stream<Req, Res>(
    method: MethodCodec<Req, Res>,
    request: Req,
    limits: CallLimits,
  ): AsyncIterable<Res> {
    limits.signal?.throwIfAborted();
    const call = this.#client.makeServerStreamRequest<Req, Res>(
      method.path,
      (message) => Buffer.from(method.encodeRequest(message)),
      (bytes) => method.decodeResponse(bytes),
      request,
      metadataOf(limits),
      optionsOf(limits),
    );
    const cancel = (): void => call.cancel();
    limits.signal?.addEventListener('abort', cancel, { once: true });
    try {
      for await (const response of call) yield response as Res;
    } catch (error) {
      throw await this.#explain(error);
    } finally {
      limits.signal?.removeEventListener('abort', cancel);
      call.cancel();
    }
  }

  [Symbol.dispose](): void {
    this.#client.close();
  }

  async #explain(error: unknown): Promise<unknown> {
    if (!isServiceError(error)) return error;
    if (error.code === grpcStatus.UNAVAILABLE) await demandListener(this.#path, this.#owner);
    return fromGrpcStatus(error.code, error.details);
  }
}

function metadataOf({ namespace }: CallLimits): Metadata {
  const metadata = new Metadata();
  if (namespace !== undefined) metadata.set('containerd-namespace', namespace);
  return metadata;
}

function optionsOf(limits: CallLimits): CallOptions {
  return { deadline: Date.now() + limits.deadline_ms };
}

function isServiceError(error: unknown): error is ServiceError {
  return error instanceof Error && 'code' in error && 'details' in error && 'metadata' in error;
}
