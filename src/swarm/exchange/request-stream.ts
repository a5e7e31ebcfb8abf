import type { Stream } from '@libp2p/interface';
import type { Clock } from '../../base/clock.ts';
import { DaemonError } from '../../base/errors.ts';
import {
  MAX_OUTSTANDING_REQUESTS,
  OPEN_STREAM_DEADLINE_MS,
  REPLACE_STREAM_BYTES,
} from '../ground/limits.ts';
import type { FrameBody } from '../transport/frame-decoder.ts';
import { FramedStream } from '../transport/framed-stream.ts';
import type { PieceBuffers } from './piece-buffers.ts';
import {
  decodeResponse,
  encodeRequest,
  listBodyBytes,
  type PieceRequest,
  type PieceResponse,
  RESPONSE_HEADER_BYTES,
} from './piece-protocol.ts';

type Request = Exclude<PieceRequest, { kind: 'cancel' }>;
type Progress = ((received_bytes: number) => void) | undefined;

type Outstanding = {
  readonly request: Request;
  sent_ms: number;
  readonly onProgress: Progress;
  readonly resolve: (body: Uint8Array) => void;
  readonly reject: (error: unknown) => void;
  /** The asker gave up: what still comes is thrown away. */
  cancelled: boolean;
  /** Bytes of the body that are still to come; undefined while it has not begun. */
  left_bytes: number | undefined;
};

/** What a request stream reports. */
export interface RequestStreamEvents {
  /** A whole body: its bytes, the time they took, and the time to the first of them. */
  onReceived(bytes: number, elapsed_ms: number, first_byte_ms: number): void;
  /** Bytes off the wire, those of abandoned answers included. */
  onBytes(bytes: number): void;
  /** The peer broke the protocol: its connection is to be closed. */
  onProtocolError(error: DaemonError): void;
}

/**
 * Requests to one peer on one long-lived stream, opened when needed and again after it broke, answers matched by id. At most 16 are
 * outstanding. Memory: exactly the bytes asked for, allocated when the answer's header agrees with the request.
 */
export class RequestStream {
  readonly #open: (signal: AbortSignal) => Promise<Stream>;
  readonly #clock: Clock;
  readonly #events: RequestStreamEvents;
  readonly #buffers: PieceBuffers;
  readonly #outstanding = new Map<number, Outstanding>();
  #stream: Promise<FramedStream> | undefined;
  #current: FramedStream | undefined;
  #nextId = 1;
  #closed: Error | undefined;
  /** When the answer before was complete: pipelined answers are timed from there. */
  #idle_ms = 0;

  constructor(modules: {
    open: (signal: AbortSignal) => Promise<Stream>;
    clock: Clock;
    events: RequestStreamEvents;
    buffers: PieceBuffers;
  }) {
    this.#open = modules.open;
    this.#clock = modules.clock;
    this.#events = modules.events;
    this.#buffers = modules.buffers;
  }

  /** Ends everything outstanding as gone. Idempotent. */
  close(reason: Error): void {
    this.#closed ??= reason;
    this.#stream?.then((stream) => stream.close(reason)).catch(() => undefined);
    this.#rejectAll(reason);
  }

  /** The body of the answer. Errors as of `PieceSource.fetch`. */
  async request(
    make: (id: number) => Request,
    { signal, onProgress }: { readonly signal: AbortSignal; readonly onProgress?: Progress },
  ): Promise<Uint8Array> {
    signal.throwIfAborted();
    if (this.#closed !== undefined) throw gone(this.#closed);
    if (this.#outstanding.size >= MAX_OUTSTANDING_REQUESTS) this.#refuseOrReset();
    const stream = await raceAbort(this.#connected(), signal);
    signal.throwIfAborted();
    // It may have died since it was opened; nobody would tell this request.
    if (stream.signal.aborted) throw gone(stream.signal.reason);
    // Others may have come in while the stream was being opened.
    if (this.#outstanding.size >= MAX_OUTSTANDING_REQUESTS) throw overfull();
    const request = make(this.#id());
    return new Promise<Uint8Array>((resolve, reject) => {
      const entry: Outstanding = {
        request,
        sent_ms: this.#clock.now_ms(),
        onProgress,
        resolve: settle(resolve),
        reject: settle(reject),
        cancelled: false,
        left_bytes: undefined,
      };
      function settle<T>(act: (value: T) => void): (value: T) => void {
        return (value) => {
          signal.removeEventListener('abort', onAbort);
          act(value);
        };
      }
      const onAbort = (): void => this.#cancel(entry, signal.reason);
      signal.addEventListener('abort', onAbort, { once: true });
      this.#outstanding.set(request.id, entry);
      stream.sendNow(encodeRequest(request));
    });
  }

  #id(): number {
    const id = this.#nextId;
    this.#nextId = (this.#nextId + 1) >>> 0;
    return id;
  }

  /** A request that waits is taken back by a frame, an answer under way only by giving up the stream it comes on. */
  #cancel(entry: Outstanding, reason: unknown): void {
    entry.cancelled = true;
    this.#current?.sendNow(encodeRequest({ kind: 'cancel', id: entry.request.id }));
    entry.reject(reason);
    if ((entry.left_bytes ?? 0) >= REPLACE_STREAM_BYTES) this.#replace();
  }

  /** Much of an answer nobody wants is still to come: a new stream spares both ends the rest. What else was asked is asked again there. */
  #replace(): void {
    const wanted = [...this.#outstanding.values()].filter((entry) => !entry.cancelled);
    const old = this.#current;
    this.#outstanding.clear();
    this.#stream = undefined;
    this.#current = undefined;
    old?.close(new DaemonError('cancelled', 'the answer under way is not wanted any more'));
    for (const entry of wanted) this.#outstanding.set(entry.request.id, entry);
    if (wanted.length === 0) return;
    this.#connected().then(
      (stream) => {
        for (const entry of wanted) {
          entry.sent_ms = this.#clock.now_ms();
          if (entry.cancelled) this.#outstanding.delete(entry.request.id);
          else stream.sendNow(encodeRequest(entry.request));
        }
      },
      (error: unknown) => this.#rejectAll(error),
    );
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

  #lost(error: Error): void {
    this.#stream = undefined;
    this.#current = undefined;
    this.#rejectAll(error);
  }

  #rejectAll(error: unknown): void {
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
    entry.left_bytes = length;
    let seen = 0;
    return {
      length,
      target,
      onProgress: (received) => {
        this.#events.onBytes(received - seen);
        seen = received;
        entry.left_bytes = length - received;
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

function refusal({ status, retry_after_ms = 0 }: PieceResponse): DaemonError {
  switch (status) {
    case 'not_found':
      return new DaemonError('not_found', 'the peer does not have the blob');
    case 'busy':
      return new DaemonError(
        'unavailable',
        'the peer has no upload slot free',
        retry_after_ms > 0 ? { retry_after_ms } : {},
      );
    case 'unsupported':
      return new DaemonError('unimplemented', 'the peer does not know such a request');
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
