import type { Stream } from '@libp2p/interface';
import type { Clock } from '../../base/clock.ts';
import { DaemonError } from '../../base/errors.ts';
import type { Digest } from '../../oci/digest.ts';
import type { PieceList } from '../../piece/piece-list.ts';
import type { FrameBody } from '../transport/frame-decoder.ts';
import { FramedStream } from '../transport/framed-stream.ts';
import { MAX_OUTSTANDING_REQUESTS, OPEN_STREAM_DEADLINE_MS } from '../ground/limits.ts';
import type { PieceBuffers } from './piece-buffers.ts';
import {
  decodeList,
  decodeResponse,
  encodeRequest,
  listBodyBytes,
  type PieceRequest,
  type PieceResponse,
  RESPONSE_HEADER_BYTES,
} from './piece-protocol.ts';

type Request = Exclude<PieceRequest, { kind: 'cancel' }>;

type Outstanding = {
  readonly request: Request;
  readonly sent_ms: number;
  readonly onProgress: ((received_bytes: number) => void) | undefined;
  readonly resolve: (body: Uint8Array) => void;
  readonly reject: (error: unknown) => void;
  /** The asker gave up: what still comes is thrown away. */
  cancelled: boolean;
};

/** What the client reports about its peer. */
export interface PieceClientEvents {
  /** A whole answer: its bytes, the time they took, and the time to the first of them. */
  onReceived(bytes: number, elapsed_ms: number, first_byte_ms: number): void;
  /** Bytes off the wire, those of abandoned answers included. */
  onBytes(bytes: number): void;
  /** The peer broke the protocol: its connection is to be closed. */
  onProtocolError(error: DaemonError): void;
}

/**
 * Our requests to one peer: one long-lived stream, opened when needed and again after it broke, answers matched by id.
 * Memory: exactly the bytes asked for, allocated when the answer's header agrees with the request.
 */
export class PieceClient {
  readonly #open: (signal: AbortSignal) => Promise<Stream>;
  readonly #clock: Clock;
  readonly #events: PieceClientEvents;
  readonly #buffers: PieceBuffers;
  readonly #outstanding = new Map<number, Outstanding>();
  #stream: Promise<FramedStream> | undefined;
  #nextId = 1;
  #closed: Error | undefined;
  /** When the answer before was complete: pipelined answers are timed from there. */
  #idle_ms = 0;

  constructor(modules: {
    open: (signal: AbortSignal) => Promise<Stream>;
    clock: Clock;
    events: PieceClientEvents;
    buffers: PieceBuffers;
  }) {
    this.#open = modules.open;
    this.#clock = modules.clock;
    this.#events = modules.events;
    this.#buffers = modules.buffers;
  }

  /** The bytes of one piece, owned by the caller, who may `release` them. Errors as of `PieceSource.fetch`. */
  piece(
    piece: { readonly digest: Digest; readonly index: number; readonly length: number },
    options: { signal: AbortSignal; onProgress?: ((received_bytes: number) => void) | undefined },
  ): Promise<Uint8Array> {
    return this.#request({ kind: 'piece', id: this.#id(), ...piece }, options);
  }

  /** The caller of `piece` is done with its bytes: the next piece may be written there. */
  release(bytes: Uint8Array): void {
    this.#buffers.give(bytes);
  }

  /** The peer's claim of the piece digests. Errors as of `PieceSource.list`. */
  async list(
    digest: Digest,
    options: { max_pieces: number; signal: AbortSignal },
  ): Promise<PieceList> {
    const { max_pieces, signal } = options;
    const body = await this.#request(
      { kind: 'list', id: this.#id(), digest, max_pieces },
      { signal },
    );
    try {
      return decodeList(digest, body);
    } catch (error) {
      this.#events.onProtocolError(error as DaemonError);
      throw error;
    }
  }

  /** Ends everything outstanding as gone. Idempotent. */
  close(reason: Error): void {
    this.#closed ??= reason;
    this.#stream?.then((stream) => stream.close(reason)).catch(() => undefined);
    this.#rejectAll(reason);
  }

  #id(): number {
    const id = this.#nextId;
    this.#nextId = (this.#nextId + 1) >>> 0;
    return id;
  }

  async #request(
    request: Request,
    options: { signal: AbortSignal; onProgress?: ((received_bytes: number) => void) | undefined },
  ): Promise<Uint8Array> {
    const { signal, onProgress } = options;
    signal.throwIfAborted();
    if (this.#closed !== undefined) throw gone(this.#closed);
    if (this.#outstanding.size >= MAX_OUTSTANDING_REQUESTS) this.#refuseOrReset();
    const stream = await raceAbort(this.#connected(), signal);
    signal.throwIfAborted();
    // Others may have come in while the stream was being opened.
    if (this.#outstanding.size >= MAX_OUTSTANDING_REQUESTS) throw overfull();
    return new Promise<Uint8Array>((resolve, reject) => {
      const entry: Outstanding = {
        request,
        sent_ms: this.#clock.now_ms(),
        onProgress,
        resolve: settle(resolve),
        reject: settle(reject),
        cancelled: false,
      };
      function settle<T>(act: (value: T) => void): (value: T) => void {
        return (value) => {
          signal.removeEventListener('abort', onAbort);
          act(value);
        };
      }
      const onAbort = (): void => {
        entry.cancelled = true;
        stream.sendNow(encodeRequest({ kind: 'cancel', id: request.id }));
        entry.reject(signal.reason);
      };
      signal.addEventListener('abort', onAbort, { once: true });
      this.#outstanding.set(request.id, entry);
      stream.sendNow(encodeRequest(request));
    });
  }

  /** A peer that answers nothing fills our table with given-up requests: a new stream forgets them. */
  #refuseOrReset(): void {
    if ([...this.#outstanding.values()].every((entry) => !entry.cancelled)) {
      throw overfull();
    }
    const reason = new DaemonError('unavailable', 'the peer left too many requests unanswered');
    this.#stream?.then((stream) => stream.close(reason)).catch(() => undefined);
    this.#lost(reason);
  }

  #connected(): Promise<FramedStream> {
    this.#stream ??= this.#connect().catch((error: unknown) => {
      this.#stream = undefined;
      throw gone(error);
    });
    return this.#stream;
  }

  async #connect(): Promise<FramedStream> {
    const stream = await this.#open(this.#clock.timeout(OPEN_STREAM_DEADLINE_MS));
    const framed: FramedStream = new FramedStream(stream, {
      header_bytes: RESPONSE_HEADER_BYTES,
      onHeader: (header) => this.#header(decodeResponse(header)),
      onEnd: (error) => {
        if (error instanceof DaemonError && error.code === 'protocol_error') {
          this.#events.onProtocolError(error);
        }
        // An older stream that ends late must not take the newer one's requests with it.
        if (this.#current === framed) this.#lost(error);
      },
    });
    this.#current = framed;
    return framed;
  }
  #current: FramedStream | undefined;

  #lost(error: Error): void {
    this.#stream = undefined;
    this.#current = undefined;
    this.#rejectAll(error);
  }

  #rejectAll(error: Error): void {
    const entries = [...this.#outstanding.values()];
    this.#outstanding.clear();
    for (const entry of entries) entry.reject(gone(error));
  }

  #header(answer: PieceResponse): FrameBody {
    const entry = this.#outstanding.get(answer.id);
    if (entry?.request.kind !== answer.kind) {
      throw new DaemonError('protocol_error', 'the peer answered what was not asked');
    }
    if (answer.status !== 'ok') {
      return { length: 0, done: () => this.#finish(entry, () => entry.reject(refusal(answer))) };
    }
    const { request } = entry;
    const fits =
      request.kind === 'piece'
        ? answer.length === request.length
        : answer.length <= listBodyBytes(request.max_pieces);
    if (!fits) throw new DaemonError('protocol_error', 'the peer answered with a wrong length');
    return this.#body(entry, answer.length);
  }

  #body(entry: Outstanding, length: number): FrameBody {
    const first_ms = this.#clock.now_ms();
    const target = entry.cancelled ? undefined : this.#buffers.take(length);
    let seen = 0;
    return {
      length,
      target,
      onProgress: (received) => {
        this.#events.onBytes(received - seen);
        seen = received;
        if (!entry.cancelled) entry.onProgress?.(received);
      },
      done: () => {
        const now_ms = this.#clock.now_ms();
        const from_ms = Math.max(entry.sent_ms, this.#idle_ms);
        this.#idle_ms = now_ms;
        this.#events.onReceived(length, now_ms - from_ms, first_ms - entry.sent_ms);
        this.#finish(entry, () => {
          if (target !== undefined) entry.resolve(target);
        });
      },
    };
  }

  #finish(entry: Outstanding, settle: () => void): void {
    this.#outstanding.delete(entry.request.id);
    if (!entry.cancelled) settle();
  }
}

function refusal(answer: PieceResponse): DaemonError {
  switch (answer.status) {
    case 'not_found':
      return new DaemonError('not_found', 'the peer does not have the blob');
    case 'busy':
      return new DaemonError('unavailable', 'the peer has no upload slot free');
    default:
      return new DaemonError('internal', 'the peer could not read the piece');
  }
}

/** Codes of `PieceSource`: a broken protocol keeps its code, everything else of a lost stream is "gone". */
function gone(cause: unknown): DaemonError {
  if (cause instanceof DaemonError && cause.code === 'protocol_error') return cause;
  return new DaemonError('internal', 'the connection to the peer is gone', {}, { cause });
}

function overfull(): DaemonError {
  return new DaemonError('unavailable', 'too many requests wait for this peer already');
}

function raceAbort<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const onAbort = (): void => reject(signal.reason as Error);
    signal.addEventListener('abort', onAbort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', onAbort));
  });
}
