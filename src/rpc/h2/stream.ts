import { DaemonError } from '../../base/errors.ts';
import { type CallModules, type CallPort, CallRunner } from '../call-runner.ts';
import type { Route } from '../routes.ts';
import type { MessageParts } from '../service.ts';
import { type CallStatus, statusOf } from '../status.ts';
import { encodeLiteral, type HeaderField } from './hpack.ts';
import { Inbound, type InboundModules, type MessageSink } from './inbound.ts';
import { type Outbox, PREFIX_BYTES } from './outbox.ts';
import type { RequestHead } from './request-head.ts';

/** A status text is cut to this many characters: it must fit one HEADERS frame, percent-encoded. */
const MAX_STATUS_TEXT = 1024;

/** What a stream asks of its connection. */
export interface StreamHost {
  readonly modules: CallModules;
  /** The stream has something to send: send what windows and socket allow. */
  pump(stream: Stream): void;
  /** The client may send `bytes` more of DATA on this stream. */
  announce(stream: Stream, bytes: number): void;
  /** The stream is over and no handler works for it any more: its messages are free. */
  released(): void;
  runnerStarted(): void;
  runnerSettled(): void;
}

/** One HTTP/2 stream: messages in, messages and a status out. Its connection owns the send windows. */
export class Stream implements CallPort, MessageSink {
  readonly id: number;
  readonly head: RequestHead;
  /** Bytes of DATA the client lets us send; may be negative after a SETTINGS change (RFC 9113, 6.9.2). */
  sendWindow: number;
  readonly inbound: Inbound;
  /** The client has sent END_STREAM. */
  remoteEnded = false;
  readonly #host: StreamHost;
  #runner: CallRunner | undefined;
  /** A handler may still work on a message. */
  #working = false;
  #out: Uint8Array | undefined;
  #outPos = 0;
  #room: (() => void) | undefined;
  #last: Uint8Array | 'ok' | undefined;
  #headSent = false;
  #closed = false;

  constructor(host: StreamHost, inbound: InboundModules, init: StreamInit) {
    this.#host = host;
    this.id = init.id;
    this.head = init.head;
    this.sendWindow = init.sendWindow;
    this.inbound = new Inbound(inbound, this);
  }

  /** Neither message bytes nor a runner yet: the hot path may answer it. */
  get untouched(): boolean {
    return this.#runner === undefined && this.inbound.untouched;
  }

  /** Our side has ended, or the stream was reset: it is to be forgotten. */
  get closed(): boolean {
    return this.#closed;
  }

  /** Something waits for windows or the socket. */
  get hasOutput(): boolean {
    return this.#out !== undefined || this.#last !== undefined;
  }

  /** Starts the call, so that its deadline runs and a dialogue opens. Unneeded before the hot path. */
  start(): void {
    if (this.#runner === undefined && !this.#closed) this.#startRunner();
  }

  announce(bytes: number): void {
    this.#host.announce(this, bytes);
  }

  begun(): void {
    this.start();
  }

  message(bytes: Uint8Array): void {
    this.#runner?.message(bytes);
  }

  refuse(error: DaemonError): void {
    this.start();
    this.#runner?.fail(error);
  }

  /** END_STREAM. `skipImmediate`: the hot path was tried. */
  halfClose(skipImmediate = false): void {
    this.remoteEnded = true;
    this.inbound.end();
    if (this.#closed) return;
    this.start();
    if (this.inbound.within) {
      this.refuse(new DaemonError('protocol_error', 'request ends within a message'));
    } else {
      this.inbound.arrived();
      this.#runner?.halfClose(skipImmediate);
    }
  }

  /** The client reset the stream, or its connection is gone. */
  abort(): void {
    if (this.#closed) return;
    this.#close();
    this.#runner?.abort();
  }

  /** Ends a call from outside, with a status: the daemon shuts down. */
  shutDown(error: DaemonError): void {
    this.refuse(error);
  }

  send(message: Uint8Array): Promise<void> | undefined {
    if (this.#closed) return undefined;
    this.#out = message;
    this.#outPos = 0;
    this.#host.pump(this);
    if (!this.#isSending()) return undefined;
    return new Promise((resolve) => {
      this.#room = resolve;
    });
  }

  /** A whole answer that may have to wait for windows. The parts are lent for the call: copied at once. */
  async sendInTurn(messages: readonly MessageParts[], status: CallStatus): Promise<void> {
    for (const message of messages.map((parts) => Buffer.concat(parts))) await this.send(message);
    this.end(status);
  }

  end(status: CallStatus): void {
    if (this.#closed) return;
    // A failure must not wait behind a message that the client does not take.
    if (status.code !== 'ok') this.#out = undefined;
    this.#last = status.code === 'ok' ? 'ok' : trailers(status, this.#headSent);
    if (status.code === 'ok' && this.#out === undefined && !this.#headSent) {
      this.#last = trailers(status, false);
    }
    this.#host.pump(this);
  }

  /** Answers a request that is no gRPC call. */
  refuseHttp(status: number): void {
    this.#last = encodeLiteral([[':status', String(status)]]);
    this.#host.pump(this);
  }

  taken(): void {
    // Other calls wait for the client's end before they begin.
    if (this.head.route?.method.kind === 'dialogue') this.inbound.arrived();
  }

  freed(bytes: number): void {
    this.inbound.freed(bytes);
  }

  /** Moves output into the outbox as far as the windows go; gives how many bytes of DATA that were. */
  write(outbox: Outbox, connectionWindow: number, maxFrame: number): number {
    let used = 0;
    const out = this.#out;
    if (out !== undefined) {
      if (!this.#headSent) {
        outbox.responseHead(this.id);
        this.#headSent = true;
      }
      const total = out.length + PREFIX_BYTES;
      while (this.#outPos < total && !outbox.blocked) {
        const left = total - this.#outPos;
        const count = Math.min(left, maxFrame, connectionWindow - used, this.sendWindow);
        if (count <= 0) break;
        outbox.data(this.id, out, this.#outPos, count);
        this.#outPos += count;
        this.sendWindow -= count;
        used += count;
      }
      if (this.#outPos < total) return used;
      this.#out = undefined;
      this.#wake();
    }
    if (this.#last !== undefined) {
      if (this.#last === 'ok') outbox.okTrailers(this.id);
      else outbox.end(this.id, this.#last);
      this.#close();
    }
    return used;
  }

  #isSending(): boolean {
    return this.#out !== undefined;
  }

  #startRunner(): void {
    const { route } = this.head;
    if (route === undefined) {
      this.#host.modules.routes.ended(undefined, 'unimplemented');
      this.end(statusOf('unimplemented', 'this method does not exist here'));
      return;
    }
    this.#runner = this.#newRunner(route);
    this.#runner.start();
  }

  #newRunner(route: Route): CallRunner {
    const { namespace, timeout_ms } = this.head;
    const settled = (): void => {
      this.#host.runnerSettled();
      this.#working = false;
      if (this.#closed) this.#release();
    };
    this.#host.runnerStarted();
    this.#working = true;
    return new CallRunner(this.#host.modules, { route, namespace, timeout_ms, settled }, this);
  }

  #close(): void {
    this.#closed = true;
    this.#out = undefined;
    this.#last = undefined;
    this.inbound.close();
    if (!this.#working) this.#release();
    this.#wake();
  }

  #release(): void {
    this.inbound.release();
    this.#host.released();
  }

  #wake(): void {
    const room = this.#room;
    this.#room = undefined;
    room?.();
  }
}

export type StreamInit = {
  readonly id: number;
  readonly head: RequestHead;
  readonly sendWindow: number;
};

/** Trailers, with the response headers in front where none were sent ("Trailers-Only"). */
function trailers(status: CallStatus, headSent: boolean): Buffer {
  const fields: HeaderField[] = headSent
    ? []
    : [
        [':status', '200'],
        ['content-type', 'application/grpc'],
      ];
  fields.push(['grpc-status', String(status.grpc)]);
  if (status.message !== '') fields.push(['grpc-message', percentEncode(status.message)]);
  return encodeLiteral(fields);
}

/** As the gRPC protocol has it for `grpc-message`: UTF-8, with everything but printable ASCII and '%' escaped. */
export function percentEncode(text: string): string {
  let encoded = '';
  for (const octet of Buffer.from(text.slice(0, MAX_STATUS_TEXT), 'utf8')) {
    encoded +=
      octet >= 0x20 && octet <= 0x7e && octet !== 0x25
        ? String.fromCharCode(octet)
        : `%${octet.toString(16).toUpperCase().padStart(2, '0')}`;
  }
  return encoded;
}
