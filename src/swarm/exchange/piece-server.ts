import type { Stream } from '@libp2p/interface';
import type { Clock } from '../../base/clock.ts';
import { DaemonError, hasCode } from '../../base/errors.ts';
import type { Logger } from '../../ops/logger.ts';
import { pieceCount } from '../../piece/layout.ts';
import type { SharedBlobs } from '../../store/blob-store.ts';
import { FramedStream } from '../transport/framed-stream.ts';
import {
  DRAIN_DEADLINE_MS,
  LEAST_READER_BYTES_PER_SECOND,
  MAX_QUEUED_REQUESTS,
  MAX_REQUEST_BACKLOG,
} from '../ground/limits.ts';
import type { SwarmMetrics } from '../metrics.ts';
import {
  decodeRequest,
  encodeList,
  encodeResponse,
  encodeUnsupported,
  isQuick,
  type PieceRequest,
  type PieceStatus,
  REQUEST_BYTES,
  type UnknownRequest,
} from './piece-protocol.ts';
import { type QuickAnswers, QuickAsker } from './quick-answers.ts';
import { SentPieces } from './sent-pieces.ts';
import type { UploadRate } from './upload-rate.ts';
import type { Busy, UploadSlots } from './upload-slots.ts';
import { WritePace } from './write-pace.ts';

type Request = Exclude<PieceRequest, { kind: 'cancel' }>;
type Queued = {
  readonly request: Request | UnknownRequest;
  readonly at_ms: number;
  /** Answered "busy" when its turn comes: the asker forgets an id only with its answer. */
  refused: boolean;
};
/** Whose answer has not begun to leave: a cancel still reaches it, and so does the end of the stream. */
type Waiting = { readonly id: number; readonly cancel: AbortController };

/** Whom a stream belongs to. */
export interface PieceAsker {
  /** Peer id: upload slots go round by peers. */
  readonly id: string;
  readonly transport: 'quic' | 'tcp';
  onSent(bytes: number): void;
  /** The peer broke the protocol: its connection is to be closed. */
  onProtocolError(error: DaemonError): void;
}

export type PieceServerModules = {
  readonly store: SharedBlobs;
  readonly slots: UploadSlots;
  readonly quick: QuickAnswers;
  readonly rate: UploadRate;
  readonly clock: Clock;
  readonly metrics: SwarmMetrics;
  readonly logger: Logger;
};

/**
 * Answers piece and list requests of admitted peers from committed blobs, one answer at a time per stream. Pieces wait for an upload slot,
 * small answers do not; whoever cannot be served in time is told "busy, in about so many ms". Memory: one piece per upload slot,
 * `MAX_QUICK_ANSWERS` small answers, and 80 bytes for each of the at most 64 requests that wait on a stream.
 */
export class PieceServer {
  readonly #modules: PieceServerModules;

  constructor(modules: PieceServerModules) {
    this.#modules = modules;
  }

  /** Serves a stream until it ends. */
  serve(stream: Stream, asker: PieceAsker): void {
    new ServedStream(stream, asker, this.#modules);
  }
}

/** One peer's stream: reads requests as they come, answers them in order. */
class ServedStream {
  readonly #modules: PieceServerModules;
  readonly #asker: PieceAsker;
  readonly #framed: FramedStream;
  readonly #quick: QuickAsker;
  readonly #queue: Queued[] = [];
  /** Who asks twice for one piece doubts the first answer: it is read and compared anew. */
  readonly #sent = new SentPieces();
  readonly #pace: WritePace;
  /** When bytes last left: the asker's patience begins anew with each. */
  #left_ms = -Infinity;
  #waiting: Waiting | undefined;
  #running = false;

  constructor(stream: Stream, asker: PieceAsker, modules: PieceServerModules) {
    this.#modules = modules;
    this.#asker = asker;
    this.#pace = new WritePace(asker.transport);
    this.#quick = new QuickAsker(modules.quick, modules.clock);
    this.#framed = new FramedStream(stream, {
      header_bytes: REQUEST_BYTES,
      onHeader: (frame) => {
        this.#accept(decodeRequest(frame));
        return { length: 0, done: () => undefined };
      },
      onEnd: (error) => {
        this.#queue.length = 0;
        this.#waiting?.cancel.abort(error);
        modules.slots.forget(asker.id);
        if (hasCode(error, 'protocol_error')) this.#asker.onProtocolError(error);
      },
    });
  }

  #accept(request: PieceRequest | UnknownRequest): void {
    if (request.kind === 'cancel') {
      if (this.#waiting?.id === request.id) this.#waiting.cancel.abort(cancelled());
      for (const queued of this.#queue) if (queued.request.id === request.id) queued.refused = true;
      return;
    }
    if (this.#queue.length >= MAX_REQUEST_BACKLOG) {
      throw new DaemonError('protocol_error', 'the peer sends more requests than are accepted');
    }
    const refused = this.#queue.length >= MAX_QUEUED_REQUESTS;
    this.#queue.push({ request, at_ms: this.#modules.clock.now_ms(), refused });
    if (!this.#running) void this.#run();
  }

  /** Never rejects: whatever goes wrong while sending ends the stream. */
  async #run(): Promise<void> {
    this.#running = true;
    try {
      for (let queued = this.#queue.shift(); queued; queued = this.#queue.shift()) {
        const { request, refused } = queued;
        if (request.kind === 'unknown') await this.#unsupported(request);
        else if (refused) await this.#status(request, 'busy');
        else await this.#answer(request, queued.at_ms);
      }
    } catch (error) {
      this.#framed.close(error as Error);
    } finally {
      this.#running = false;
    }
  }

  async #answer(request: Request, at_ms: number): Promise<void> {
    const cancel = new AbortController();
    const { signal } = cancel;
    this.#waiting = { id: request.id, cancel };
    try {
      const entered = isQuick(request)
        ? this.#quick.enter()
        : await this.#slot(request, at_ms, signal);
      if ('retry_after_ms' in entered) await this.#status(request, 'busy', entered.retry_after_ms);
      else await this.#serve(request, entered, signal);
    } catch (error) {
      if (this.#framed.signal.aborted || !signal.aborted) throw error;
      await this.#status(request, 'busy');
    } finally {
      this.#waiting = undefined;
    }
  }

  /** Reads and sends; the hold is let go when the last byte has left. */
  async #serve(request: Request, hold: Disposable, signal: AbortSignal): Promise<void> {
    try {
      const body = await this.#read(request);
      if (!(body instanceof Uint8Array)) {
        await this.#status(request, body);
        return;
      }
      await this.#modules.rate.take(this.#slice(body, 0).length, signal);
      signal.throwIfAborted();
      this.#waiting = undefined;
      await this.#body(request, body);
    } finally {
      hold[Symbol.dispose]();
    }
  }

  #slot(request: Request, at_ms: number, signal: AbortSignal): Promise<Disposable | Busy> {
    const { slots, clock } = this.#modules;
    const waited_ms = clock.now_ms() - Math.max(at_ms, this.#left_ms);
    const { patience_ms = 0 } = request;
    return slots.acquire({ asker: this.#asker.id, waited_ms, patience_ms }, signal);
  }

  /** The header and the first slice, whose tokens are taken, then slice by slice as the limit and the reader allow. */
  async #body(request: Request, body: Uint8Array): Promise<void> {
    const { rate, metrics, clock } = this.#modules;
    const { signal } = this.#framed;
    const { kind, id } = request;
    await this.#send(encodeResponse({ kind, id, status: 'ok', length: body.length }));
    let sending_ms = 0;
    for (let at = 0; at < body.length; ) {
      const slice = this.#slice(body, at);
      if (at > 0) await rate.take(slice.length, signal);
      const from_ms = clock.now_ms();
      await this.#send(slice);
      const took_ms = clock.now_ms() - from_ms;
      this.#pace.wrote(slice.length, took_ms);
      at += slice.length;
      sending_ms += took_ms;
      this.#left_ms = clock.now_ms();
      this.#asker.onSent(slice.length);
      metrics.uploaded.inc({}, slice.length);
      const least_ms = (at * 1000) / LEAST_READER_BYTES_PER_SECOND;
      if (sending_ms > DRAIN_DEADLINE_MS + least_ms) {
        throw new DaemonError('deadline_exceeded', 'the peer reads too slowly to keep its slot');
      }
    }
    metrics.served.inc({ kind, status: 'ok' });
  }

  #slice(body: Uint8Array, at: number): Uint8Array {
    return body.subarray(at, at + Math.min(this.#pace.bytes, this.#modules.rate.slice_bytes));
  }

  async #read(request: Request): Promise<Uint8Array | PieceStatus> {
    try {
      if (request.kind === 'list') {
        const list = await this.#modules.store.pieceList(request.digest);
        return pieceCount(list.size_bytes) > request.max_pieces ? 'not_found' : encodeList(list);
      }
      const doubted = this.#sent.has(request.digest, request.index);
      const bytes = await this.#modules.store.readPiece(request.digest, request.index, { doubted });
      this.#sent.add(request.digest, request.index);
      return bytes.length === request.length ? bytes : 'not_found';
    } catch (error) {
      if (hasCode(error, 'not_found', 'out_of_range', 'data_loss')) return 'not_found';
      this.#modules.logger.warn(
        { err: error, digest: request.digest },
        'a shared blob could not be read',
      );
      return 'error';
    }
  }

  async #status(request: Request, status: PieceStatus, retry_after_ms = 0): Promise<void> {
    const { kind, id } = request;
    this.#modules.metrics.served.inc({ kind, status });
    await this.#send(encodeResponse({ kind, id, status, length: 0, retry_after_ms }));
  }

  async #unsupported(request: UnknownRequest): Promise<void> {
    this.#modules.metrics.served.inc({ kind: 'unknown', status: 'unsupported' });
    await this.#send(encodeUnsupported(request));
  }

  async #send(bytes: Uint8Array): Promise<void> {
    await this.#framed.send(bytes, this.#modules.clock.timeout(DRAIN_DEADLINE_MS));
  }
}

function cancelled(): DaemonError {
  return new DaemonError('cancelled', 'the asker gave up');
}
