/**
 * What a door gives to a server: methods that know nothing of the server they run on. The same table runs on grpc-js and
 * on our own HTTP/2 server; a contract suite holds both to it.
 */

/** One call, as a handler sees it. */
export type CallContext = {
  /** Aborts when the client resets the stream, its connection ends, or the server closes. */
  readonly signal: AbortSignal;
  /** The `containerd-namespace` header, '' when absent. For display only. */
  readonly namespace: string;
};

/** One serialized message: its bytes are those of the parts, in order. */
export type MessageParts = readonly Uint8Array[];

/** One request, one answer. A thrown DaemonError becomes the mapped gRPC status, anything else INTERNAL with an id. */
export type UnaryMethod<Req, Res> = {
  readonly kind: 'unary';
  readonly decode: (bytes: Uint8Array) => Req;
  readonly encode: (response: Res) => Uint8Array;
  readonly handle: (request: Req, call: CallContext) => Res | Promise<Res>;
};

/** One request, many answers; the server pulls the next one only when the client can take it. */
export type ServerStreamMethod<Req, Res> = {
  readonly kind: 'server_stream';
  readonly decode: (bytes: Uint8Array) => Req;
  readonly encode: (response: Res) => Uint8Array;
  readonly handle: (request: Req, call: CallContext) => AsyncIterable<Res> | Iterable<Res>;
  /**
   * Hot path: the whole answer straight from the request's bytes, in one synchronous step, as serialized messages, each in
   * parts (so that payload is not copied), or undefined to go the ordinary way. The server does not keep the views after it wrote them.
   */
  readonly immediate?: (request: Uint8Array) => readonly MessageParts[] | undefined;
};

/** A conversation of strict request and answer over one stream (containerd's Write). */
export type DialogueMethod<Req, Res> = {
  readonly kind: 'dialogue';
  readonly decode: (bytes: Uint8Array) => Req;
  readonly encode: (response: Res) => Uint8Array;
  /** Called once per stream, before its first message. */
  readonly open: (call: CallContext) => Dialogue<Req, Res>;
};

/** One open stream. `answer` is never called again before the former promise settled; `close` is called exactly once, at the end. */
export interface Dialogue<Req, Res> {
  /** The answer to one message; `last` ends the stream with OK after it. A rejection ends the stream with the mapped status. Request bytes are lent until the promise settles. */
  answer(request: Req): Promise<{ readonly response: Res; readonly last: boolean }>;
  /** The stream is over (client done, reset, error, shutdown): free what it holds. Never throws. Called while `answer` may still wait; `call.signal` is aborted by then unless the client ended in order. */
  close(): Promise<void>;
}

/* eslint-disable @typescript-eslint/no-explicit-any -- a table holds methods of differing message types; each is typed where it is made */
export type AnyMethod =
  | UnaryMethod<any, any>
  | ServerStreamMethod<any, any>
  | DialogueMethod<any, any>;
/* eslint-enable @typescript-eslint/no-explicit-any */

/** Methods by full path, e.g. `/containerd.services.content.v1.Content/Info`. */
export type ServiceTable = ReadonlyMap<string, AnyMethod>;
