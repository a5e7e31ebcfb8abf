import type { Socket } from 'node:net';
import type { DaemonError } from '../../base/errors.ts';
import type { CallModules } from '../call-runner.ts';
import type { CreditPool } from './credit-pool.ts';
import {
  ConnectionError,
  DEFAULT_MAX_FRAME,
  FLAG,
  FRAME,
  FrameReader,
  type FrameSink,
  H2_CODE,
  MAX_WINDOW,
  PREFACE,
  readSettings,
  readUint32,
  unpad,
} from './frames.ts';
import { GREETING } from './greeting.ts';
import { Outbox } from './outbox.ts';
import { PingAnswers } from './ping-answers.ts';
import { HeadDecoder, MAX_HEADER_BYTES } from './request-head.ts';
import { Streams } from './streams.ts';

/** For a client to say its preface. */
const PREFACE_TIMEOUT_MS = 10_000;
/** For a client that was told to end to take what was sent. */
const LINGER_MS = 1000;
/** CONTINUATION frames one header block may have. */
const MAX_CONTINUATIONS = 64;
/** Marks the PING behind our first GOAWAY: its ack says that the client has read that. */
const DRAIN_PING = Buffer.from('draining', 'latin1');

/** What a connection tells its server. */
export type ConnectionEvents = {
  readonly closed: (connection: Connection) => void;
  readonly runnerStarted: () => void;
  readonly runnerSettled: () => void;
};

/** `pool` is shared by all connections of a server. */
export type ConnectionModules = CallModules & { readonly pool: CreditPool };

type HeaderBlock = {
  readonly stream: number;
  readonly endStream: boolean;
  readonly parts: Buffer[];
  bytes: number;
};

/**
 * One client's HTTP/2 connection (RFC 9113). What the client breaks ends the stream or the connection with the code that
 * the RFC names; nothing is thrown out of here. Resets are never counted against a client: containerd cancels nearly
 * every Read once it has read enough of it.
 */
export class Connection implements FrameSink {
  readonly #modules: ConnectionModules;
  readonly #socket: Socket;
  readonly #events: ConnectionEvents;
  readonly #outbox: Outbox;
  readonly #reader = new FrameReader({ maxPayload_bytes: DEFAULT_MAX_FRAME });
  readonly #heads: HeadDecoder;
  readonly #streams: Streams;
  readonly #closed = new AbortController();
  readonly #pings: PingAnswers;
  #prefaceSeen = 0;
  #settingsSeen = false;
  #block: HeaderBlock | undefined;
  /** Inside `#receive`: everything is written at its end. */
  #receiving = false;
  #flushQueued = false;
  /** `serving` until told to drain; `draining` until the client knows; `last` = no new streams; `dead` = nothing more. */
  #phase: 'serving' | 'draining' | 'last' | 'dead' = 'serving';

  constructor(
    modules: ConnectionModules,
    { socket, greeted }: { readonly socket: Socket; readonly greeted: boolean },
    events: ConnectionEvents,
  ) {
    this.#modules = modules;
    this.#socket = socket;
    this.#events = events;
    this.#outbox = new Outbox(socket);
    this.#heads = new HeadDecoder(modules);
    this.#streams = new Streams(
      { ...modules, outbox: this.#outbox },
      {
        written: () => this.#flushSoon(),
        failed: (error) => this.#fail(error),
        runnerStarted: events.runnerStarted,
        runnerSettled: events.runnerSettled,
      },
    );
    const send = (payload: Uint8Array): void => this.#outbox.pingAck(payload);
    const sendLate = (payload: Uint8Array): void => this.#sendPong(payload);
    this.#pings = new PingAnswers({ clock: modules.clock, send, sendLate }, this.#closed.signal);
    socket.on('data', (chunk: Buffer) => this.#receive(chunk));
    socket.on('drain', () => this.#drained());
    // 'close' follows and does the work; without a listener an ECONNRESET would end the process.
    socket.on('error', () => undefined);
    socket.on('close', () => this.#gone());
    if (!greeted) socket.write(GREETING);
    this.#destroyAfter(PREFACE_TIMEOUT_MS, () => !this.#settingsSeen);
  }

  get openStreams(): number {
    return this.#streams.size;
  }

  /**
   * Says GOAWAY. Calls under way end in their time, then the connection ends; calls that the client sends before it has
   * read the GOAWAY are served too, so none is lost.
   */
  drain(): void {
    if (this.#phase !== 'serving') return;
    this.#phase = 'draining';
    this.#attempt(() => {
      this.#outbox.goaway(MAX_WINDOW, H2_CODE.no_error, '');
      this.#outbox.ping(DRAIN_PING);
      // A client that has not said SETTINGS has no call to lose.
      if (!this.#settingsSeen) this.#takeNoMore();
    });
    this.#flush();
  }

  /** Ends every call with `error`, then the connection, which has a moment to take that. */
  shutDown(error: DaemonError): void {
    if (this.#phase === 'dead') return;
    this.#streams.shutDown(error);
    this.#end(H2_CODE.no_error, '');
  }

  frame(
    type: number,
    flags: number,
    id: number,
    bytes: Buffer,
    start: number,
    end: number,
  ): boolean {
    if (this.#block !== undefined && type !== FRAME.continuation) {
      throw broken('frame inside a header block');
    }
    if (!this.#settingsSeen && (type !== FRAME.settings || (flags & FLAG.ack) !== 0)) {
      throw broken('first frame is not SETTINGS');
    }
    if (type === FRAME.data) {
      if (id === 0) throw broken('DATA on stream 0');
      this.#streams.data(flags, id, bytes, start, end);
    } else if (type === FRAME.headers) this.#headers(flags, id, bytes, start, end);
    else if (type === FRAME.window_update) {
      demandSize(end - start, 4);
      this.#streams.windowUpdate(id, readUint32(bytes, start) & MAX_WINDOW);
    } else if (type === FRAME.ping) this.#ping(flags, id, bytes.subarray(start, end));
    else if (type === FRAME.rst_stream) {
      demandSize(end - start, 4);
      if (id === 0) throw broken('RST_STREAM on stream 0');
      this.#streams.aborted(id);
    } else if (type === FRAME.settings) this.#settings(flags, id, bytes, start, end);
    else if (type === FRAME.continuation) this.#continuation(flags, id, bytes, start, end);
    else if (type === FRAME.priority) {
      if (id === 0) throw broken('PRIORITY on stream 0');
      demandSize(end - start, 5);
    } else if (type === FRAME.goaway) this.#goaway(id, end - start);
    else if (type === FRAME.push_promise) throw broken('PUSH_PROMISE from a client');
    return this.#phase !== 'dead';
  }

  #receive(chunk: Buffer): void {
    if (this.#phase === 'dead') return;
    this.#receiving = true;
    this.#attempt(() => {
      const rest = this.#prefaceSeen < PREFACE.length ? this.#preface(chunk) : chunk;
      if (rest.length > 0) this.#reader.push(rest, this);
    });
    this.#receiving = false;
    this.#flush();
  }

  #preface(chunk: Buffer): Buffer {
    const count = Math.min(chunk.length, PREFACE.length - this.#prefaceSeen);
    const expected = PREFACE.subarray(this.#prefaceSeen, this.#prefaceSeen + count);
    if (!chunk.subarray(0, count).equals(expected)) throw broken('not an HTTP/2 client preface');
    this.#prefaceSeen += count;
    return chunk.subarray(count);
  }

  #headers(flags: number, id: number, bytes: Buffer, start: number, end: number): void {
    if (id % 2 === 0) throw broken('HEADERS on a stream that no client opens');
    const endStream = (flags & FLAG.end_stream) !== 0;
    let [from, to] = [start, end];
    if ((flags & (FLAG.padded | FLAG.priority)) !== 0) {
      [from, to] = unpad(flags, bytes, start, end);
      if ((flags & FLAG.priority) !== 0) from += 5;
      if (from > to) throw new ConnectionError(H2_CODE.frame_size_error, 'HEADERS too short');
    }
    if ((flags & FLAG.end_headers) !== 0) {
      this.#streams.headers(id, this.#heads.decode(bytes, from, to), endStream);
    } else {
      const part = bytes.subarray(from, to);
      this.#block = { stream: id, endStream, parts: [part], bytes: part.length };
    }
  }

  #continuation(flags: number, id: number, bytes: Buffer, start: number, end: number): void {
    const block = this.#block;
    if (block?.stream !== id) throw broken('CONTINUATION of no header block');
    block.bytes += end - start;
    if (block.bytes > MAX_HEADER_BYTES || block.parts.length > MAX_CONTINUATIONS) {
      throw new ConnectionError(H2_CODE.enhance_your_calm, 'header block too large');
    }
    block.parts.push(bytes.subarray(start, end));
    if ((flags & FLAG.end_headers) === 0) return;
    this.#block = undefined;
    const whole = Buffer.concat(block.parts);
    this.#streams.headers(id, this.#heads.decode(whole, 0, whole.length), block.endStream);
  }

  #settings(flags: number, id: number, bytes: Buffer, start: number, end: number): void {
    if (id !== 0) throw broken('SETTINGS on a stream');
    if ((flags & FLAG.ack) !== 0) {
      demandSize(end - start, 0);
      this.#heads.forbidTable();
      return;
    }
    this.#settingsSeen = true;
    const settings = readSettings(bytes, start, end);
    this.#outbox.settingsAck();
    this.#streams.apply(settings);
  }

  #ping(flags: number, id: number, payload: Buffer): void {
    if (id !== 0) throw broken('PING on a stream');
    demandSize(payload.length, 8);
    if ((flags & FLAG.ack) === 0) this.#pings.ping(payload);
    else if (this.#phase === 'draining' && payload.equals(DRAIN_PING)) this.#takeNoMore();
  }

  #sendPong(payload: Uint8Array): void {
    if (this.#phase === 'dead') return;
    this.#attempt(() => this.#outbox.pingAck(payload));
    this.#flush();
  }

  #goaway(id: number, size: number): void {
    if (id !== 0) throw broken('GOAWAY on a stream');
    if (size < 8) throw new ConnectionError(H2_CODE.frame_size_error, 'GOAWAY too short');
    if (this.#phase === 'serving' || this.#phase === 'draining') this.#takeNoMore();
  }

  /** The client opens no more streams, or knows that it must not: the connection ends with its last stream. */
  #takeNoMore(): void {
    this.#phase = 'last';
    this.#streams.refuseNew();
    this.#outbox.goaway(this.#streams.lastId, H2_CODE.no_error, '');
  }

  #drained(): void {
    this.#outbox.unblock();
    this.#attempt(() => this.#streams.pumpAll());
    this.#flush();
  }

  #flushSoon(): void {
    if (this.#receiving || this.#flushQueued) return;
    this.#flushQueued = true;
    // A message and the status behind it are put in one turn: this lets them leave in one write.
    queueMicrotask(() => {
      this.#flushQueued = false;
      this.#flush();
    });
  }

  #flush(): void {
    if (this.#phase === 'dead') return;
    this.#attempt(() => this.#outbox.flush());
    if (this.#phase === 'last' && this.#streams.size === 0) this.#close();
  }

  #attempt(work: () => void): void {
    try {
      work();
    } catch (error) {
      this.#fail(error);
    }
  }

  #fail(error: unknown): void {
    if (this.#phase === 'dead') return;
    const { logger } = this.#modules;
    if (error instanceof ConnectionError) {
      logger.warn(
        { reason: error.message, h2_code: error.code },
        'client connection ended: it broke HTTP/2',
      );
      this.#end(error.code, error.message);
    } else {
      logger.error({ err: error }, 'client connection ended by a defect of the server');
      this.#end(H2_CODE.internal_error, '');
    }
  }

  #end(code: ConnectionError['code'], reason: string): void {
    try {
      this.#outbox.goaway(this.#streams.lastId, code, reason);
      this.#outbox.flush();
    } catch {
      // The client does not read: it cannot be told.
      this.#socket.destroy();
    }
    this.#close();
  }

  #close(): void {
    this.#phase = 'dead';
    this.#streams.abortAll();
    // Reads on, ignoring what comes, so that a client in the middle of sending finds our GOAWAY and not a reset.
    this.#socket.end();
    this.#destroyAfter(LINGER_MS, () => true);
  }

  #gone(): void {
    this.#phase = 'dead';
    this.#closed.abort();
    this.#streams.abortAll();
    this.#events.closed(this);
  }

  #destroyAfter(ms: number, condition: () => boolean): void {
    this.#modules.clock.sleep(ms, { signal: this.#closed.signal }).then(
      () => {
        if (condition()) this.#socket.destroy();
      },
      () => undefined, // closed by then
    );
  }
}

function broken(message: string): ConnectionError {
  return new ConnectionError(H2_CODE.protocol_error, message);
}

function demandSize(size: number, expected: number): void {
  if (size === expected) return;
  throw new ConnectionError(H2_CODE.frame_size_error, 'frame of a size its type does not have');
}
