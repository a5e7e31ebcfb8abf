import type { DaemonError } from '../../base/errors.ts';
import type { CallModules } from '../call-runner.ts';
import type { Route } from '../routes.ts';
import { OK, toGrpcStatus } from '../status.ts';
import type { CreditPool } from './credit-pool.ts';
import { ReceiveWindow, RecentIds } from './flow.ts';
import {
  ConnectionError,
  DEFAULT_MAX_FRAME,
  FLAG,
  H2_CODE,
  type H2Code,
  MAX_WINDOW,
  type PeerSettings,
  readUint32,
  unpad,
} from './frames.ts';
import type { InboundModules } from './inbound.ts';
import type { MessageParts } from '../service.ts';
import { byteLength, type Outbox, PREFIX_BYTES } from './outbox.ts';
import type { RequestHead } from './request-head.ts';
import { Stream, type StreamHost } from './stream.ts';

/** Calls that may be open at once on one connection; containerd has a few dozen. */
export const MAX_STREAMS = 1000;
/** Calls whose handler still runs, the reset ones included: past this new ones are refused. */
const MAX_UNSETTLED = 2 * MAX_STREAMS;
/** Streams that we ended before the client did: what it had sent by then is ignored. */
const MAX_REMEMBERED_RESETS = 256;
/** The send window of either side before SETTINGS say otherwise (RFC 9113, 6.9.2). */
export const DEFAULT_WINDOW = 65_535;

/** What the streams ask of their connection. */
export type StreamsEvents = {
  /** Something was put into the outbox: write it soon. */
  readonly written: () => void;
  /** The client broke the protocol, or the outbox is over its bound. */
  readonly failed: (error: unknown) => void;
  readonly runnerStarted: () => void;
  readonly runnerSettled: () => void;
};

/** `pool` is shared by all connections of a server. */
export type StreamsModules = CallModules & { readonly outbox: Outbox; readonly pool: CreditPool };

/** The streams of one connection, with both directions' flow control (RFC 9113, 5 and 6.9). */
export class Streams implements StreamHost {
  readonly modules: CallModules;
  readonly #inbound: InboundModules;
  readonly #outbox: Outbox;
  readonly #events: StreamsEvents;
  readonly #streams = new Map<number, Stream>();
  /** Streams with output that windows or socket hold back; insertion order is the order of turns. */
  readonly #ready = new Set<Stream>();
  readonly #recentResets = new RecentIds({ limit: MAX_REMEMBERED_RESETS });
  readonly #receiveWindow = new ReceiveWindow();
  #lastId = 0;
  /** The highest stream the client has opened, the refused ones included: what is above it is idle. */
  #opened = 0;
  #unsettled = 0;
  #sendWindow = DEFAULT_WINDOW;
  #peerInitialWindow = DEFAULT_WINDOW;
  #peerMaxFrame = DEFAULT_MAX_FRAME;
  #refusing = false;
  #dead = false;

  constructor(modules: StreamsModules, events: StreamsEvents) {
    this.modules = modules;
    this.#inbound = { pool: modules.pool, owner: this };
    this.#outbox = modules.outbox;
    this.#events = events;
  }

  get size(): number {
    return this.#streams.size;
  }

  /** The highest stream that was, or will be, worked on. */
  get lastId(): number {
    return this.#lastId;
  }

  /** New streams are refused from now on; the client may send them elsewhere. */
  refuseNew(): void {
    this.#refusing = true;
  }

  /** A whole header block arrived: a request, or trailers. */
  headers(id: number, head: RequestHead, endStream: boolean): void {
    const open = this.#streams.get(id);
    if (open !== undefined) {
      if (open.remoteEnded) this.#reset(open, H2_CODE.stream_closed);
      else if (endStream) open.halfClose();
      else this.#reset(open, H2_CODE.protocol_error);
      return;
    }
    if (id <= this.#opened) {
      if (this.#recentResets.has(id)) return;
      throw new ConnectionError(H2_CODE.stream_closed, 'HEADERS on a closed stream');
    }
    this.#opened = id;
    // After our last GOAWAY the id it named must stay the last one.
    if (!this.#refusing) this.#lastId = id;
    if (this.#refusing || this.#streams.size >= MAX_STREAMS || this.#unsettled >= MAX_UNSETTLED) {
      this.#sendReset(id, H2_CODE.refused_stream);
      return;
    }
    if (head.malformed) this.#sendReset(id, H2_CODE.protocol_error);
    else if (this.#inbound.pool.enter()) this.#open(id, head, endStream);
    else this.#sendReset(id, H2_CODE.refused_stream);
  }

  #open(id: number, head: RequestHead, endStream: boolean): void {
    const stream = new Stream(this, this.#inbound, {
      id,
      head,
      sendWindow: this.#peerInitialWindow,
    });
    this.#streams.set(id, stream);
    if (head.refuse_http !== undefined) stream.refuseHttp(head.refuse_http);
    else if (endStream) stream.halfClose();
    else if (head.immediate === undefined) stream.start();
  }

  /** A DATA frame; the window is spent whatever comes of the stream. */
  data(flags: number, id: number, bytes: Buffer, start: number, end: number): void {
    const size = end - start;
    const credit = this.#receiveWindow.spend(size);
    if (credit > 0) this.#outbox.windowUpdate(0, credit);
    const stream = this.#streams.get(id);
    if (stream === undefined) {
      if (id > this.#opened) throw broken('DATA on an idle stream');
      if (!this.#recentResets.has(id)) this.#sendReset(id, H2_CODE.stream_closed);
      return;
    }
    if (stream.remoteEnded) {
      this.#reset(stream, H2_CODE.stream_closed);
      return;
    }
    const { inbound } = stream;
    if (!inbound.spend(size)) {
      this.#reset(stream, H2_CODE.flow_control_error);
      return;
    }
    const endStream = (flags & FLAG.end_stream) !== 0;
    const [from, to] = unpad(flags, bytes, start, end);
    if (to - from < size) inbound.padding(size - (to - from));
    if (endStream && this.#answersAtOnce(stream, bytes, from, to)) return;
    inbound.data(bytes, from, to);
    if (endStream) stream.halfClose();
  }

  /**
   * The hot path: the whole request in one frame, the whole answer from one synchronous call, and all of the answer
   * into the outbox. No call runner, promise, signal or closure is made. False: nothing was done.
   */
  #answersAtOnce(stream: Stream, bytes: Buffer, start: number, end: number): boolean {
    const { route, immediate } = stream.head;
    if (route === undefined || immediate === undefined || !stream.untouched) return false;
    const size = end - start - PREFIX_BYTES;
    if (size < 0 || bytes[start] !== 0 || readUint32(bytes, start + 1) !== size) return false;
    stream.remoteEnded = true;
    let messages: readonly MessageParts[] | undefined;
    try {
      messages = immediate(bytes.subarray(start + PREFIX_BYTES, end));
    } catch (error) {
      this.#failAtOnce(stream, route, error);
      return true;
    }
    if (messages === undefined) {
      stream.remoteEnded = false;
      stream.inbound.data(bytes, start, end);
      stream.halfClose(true);
      return true;
    }
    let framed = 0;
    for (const parts of messages) framed += byteLength(parts) + PREFIX_BYTES;
    route.immediateCalls += 1;
    if (framed <= this.#sendWindow && framed <= stream.sendWindow && !this.#outbox.blocked) {
      this.#outbox.answer(stream.id, messages, framed, this.#peerMaxFrame);
      this.#sendWindow -= framed;
      this.#streams.delete(stream.id);
      this.released();
    } else {
      void stream.sendInTurn(messages, OK);
    }
    return true;
  }

  #failAtOnce(stream: Stream, route: Route, error: unknown): void {
    const status = toGrpcStatus(error, (found) =>
      this.modules.logger.error({ ...found, method: route.path }, 'call failed unexpectedly'),
    );
    this.modules.routes.ended(route, status.code);
    stream.end(status);
  }

  /** WINDOW_UPDATE on a stream, or on the connection for id 0. */
  windowUpdate(id: number, increment: number): void {
    if (id === 0) {
      if (increment === 0) throw broken('WINDOW_UPDATE of nothing');
      this.#sendWindow += increment;
      if (this.#sendWindow > MAX_WINDOW) throw overflow();
      if (this.#ready.size > 0) this.pumpAll();
      return;
    }
    const stream = this.#streams.get(id);
    if (stream === undefined) {
      if (id > this.#opened) throw broken('WINDOW_UPDATE on an idle stream');
      return;
    }
    stream.sendWindow += increment;
    if (increment === 0) this.#reset(stream, H2_CODE.protocol_error);
    else if (stream.sendWindow > MAX_WINDOW) this.#reset(stream, H2_CODE.flow_control_error);
    else if (stream.hasOutput) this.pump(stream);
  }

  /** RST_STREAM from the client: the usual end of a Read that containerd has read enough of. */
  aborted(id: number): void {
    const stream = this.#streams.get(id);
    if (stream === undefined) {
      if (id > this.#opened) throw broken('RST_STREAM on an idle stream');
      return;
    }
    this.#drop(stream);
    stream.abort();
  }

  /** The client's SETTINGS; open streams' windows move along (RFC 9113, 6.9.2). */
  apply(settings: PeerSettings): void {
    if (settings.maxFrame !== undefined) this.#peerMaxFrame = settings.maxFrame;
    if (settings.initialWindow === undefined) return;
    const change = settings.initialWindow - this.#peerInitialWindow;
    this.#peerInitialWindow = settings.initialWindow;
    for (const stream of this.#streams.values()) {
      stream.sendWindow += change;
      if (stream.sendWindow > MAX_WINDOW) throw overflow();
    }
    if (change > 0) this.pumpAll();
  }

  /** Gives every stream that waits its turn. */
  pumpAll(): void {
    for (const stream of [...this.#ready]) {
      if (this.#outbox.blocked || this.#sendWindow <= 0) return;
      this.pump(stream);
    }
  }

  pump(stream: Stream): void {
    if (this.#dead) return;
    try {
      this.#sendWindow -= stream.write(this.#outbox, this.#sendWindow, this.#peerMaxFrame);
      // Deleted and added again: the next turn is another stream's.
      this.#ready.delete(stream);
      if (stream.hasOutput) this.#ready.add(stream);
      else if (stream.closed) this.#ended(stream);
    } catch (error) {
      this.#events.failed(error);
    }
    this.#events.written();
  }

  announce(stream: Stream, bytes: number): void {
    if (!this.#dead) this.#put(() => this.#outbox.windowUpdate(stream.id, bytes));
  }

  released(): void {
    this.#inbound.pool.leave();
  }

  runnerStarted(): void {
    this.#unsettled += 1;
    this.#events.runnerStarted();
  }

  runnerSettled(): void {
    this.#unsettled -= 1;
    this.#events.runnerSettled();
  }

  /** Ends every call with a status. */
  shutDown(error: DaemonError): void {
    for (const stream of [...this.#streams.values()]) stream.shutDown(error);
  }

  /** The connection is over: handlers are told, nothing more is sent. */
  abortAll(): void {
    this.#dead = true;
    for (const stream of [...this.#streams.values()]) {
      this.#drop(stream);
      stream.abort();
    }
  }

  /** Our side of the stream has ended. A client that still sends is told that nobody listens (RFC 9113, 8.1). */
  #ended(stream: Stream): void {
    this.#drop(stream);
    if (!stream.remoteEnded) this.#sendReset(stream.id, H2_CODE.no_error);
  }

  #reset(stream: Stream, code: H2Code): void {
    this.#drop(stream);
    this.#sendReset(stream.id, code);
    stream.abort();
  }

  #drop(stream: Stream): void {
    this.#streams.delete(stream.id);
    this.#ready.delete(stream);
  }

  #sendReset(id: number, code: H2Code): void {
    this.#recentResets.add(id);
    this.#put(() => this.#outbox.reset(id, code));
  }

  #put(write: () => void): void {
    try {
      write();
    } catch (error) {
      this.#events.failed(error);
    }
    this.#events.written();
  }
}

function broken(message: string): ConnectionError {
  return new ConnectionError(H2_CODE.protocol_error, message);
}

function overflow(): ConnectionError {
  return new ConnectionError(H2_CODE.flow_control_error, 'send window beyond 2^31 - 1');
}
