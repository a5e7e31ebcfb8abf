import type { Stream } from '@libp2p/interface';
import type { Clock } from '../../base/clock.ts';
import { DaemonError, hasCode } from '../../base/errors.ts';
import type { Logger } from '../../ops/logger.ts';
import { pieceCount } from '../../piece/layout.ts';
import type { SharedBlobs } from '../../store/blob-store.ts';
import { FramedStream } from '../transport/framed-stream.ts';
import {
  DRAIN_DEADLINE_MS,
  MAX_QUEUED_REQUESTS,
  MAX_REQUEST_BACKLOG,
  WRITE_BYTES,
} from '../ground/limits.ts';
import type { SwarmMetrics } from '../metrics.ts';
import {
  decodeRequest,
  encodeList,
  encodeResponse,
  type PieceRequest,
  type PieceStatus,
  REQUEST_BYTES,
} from './piece-protocol.ts';
import type { TokenBucket } from '../ground/token-bucket.ts';
import { SentPieces } from './sent-pieces.ts';
import type { UploadSlots } from './upload-slots.ts';

type Request = Exclude<PieceRequest, { kind: 'cancel' }>;
type Queued = { readonly request: Request; readonly refused: boolean };

/** Whom a stream belongs to. */
export interface PieceAsker {
  onSent(bytes: number): void;
  /** The peer broke the protocol: its connection is to be closed. */
  onProtocolError(error: DaemonError): void;
}

export type PieceServerModules = {
  readonly store: SharedBlobs;
  readonly slots: UploadSlots;
  readonly bucket: TokenBucket;
  readonly clock: Clock;
  readonly metrics: SwarmMetrics;
  readonly logger: Logger;
};

/** Answers piece and list requests of admitted peers from committed blobs, one answer at a time per stream. */
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
  readonly #queue: Queued[] = [];
  /** Who asks twice for one piece doubts the first answer: it is read and compared anew. */
  readonly #sent = new SentPieces();
  #running = false;

  constructor(stream: Stream, asker: PieceAsker, modules: PieceServerModules) {
    this.#modules = modules;
    this.#asker = asker;
    this.#framed = new FramedStream(stream, {
      header_bytes: REQUEST_BYTES,
      onHeader: (frame) => {
        this.#accept(decodeRequest(frame));
        return { length: 0, done: () => undefined };
      },
      onEnd: (error) => {
        this.#queue.length = 0;
        if (hasCode(error, 'protocol_error')) this.#asker.onProtocolError(error);
      },
    });
  }

  #accept(request: PieceRequest): void {
    if (request.kind === 'cancel') {
      const at = this.#queue.findIndex((queued) => queued.request.id === request.id);
      if (at >= 0) {
        // The asker forgets an id only with its answer, so a skipped request is answered too, without a body.
        this.#queue[at] = { request: this.#queue[at]!.request, refused: true };
      }
      return;
    }
    if (this.#queue.length >= MAX_REQUEST_BACKLOG) {
      throw new DaemonError('protocol_error', 'the peer sends more requests than are accepted');
    }
    this.#queue.push({ request, refused: this.#queue.length >= MAX_QUEUED_REQUESTS });
    if (!this.#running) void this.#run();
  }

  /** Never rejects: whatever goes wrong while sending ends the stream. */
  async #run(): Promise<void> {
    this.#running = true;
    try {
      for (let queued = this.#queue.shift(); queued; queued = this.#queue.shift()) {
        if (queued.refused) await this.#status(queued.request, 'busy');
        else await this.#answer(queued.request);
      }
    } catch (error) {
      this.#framed.close(error as Error);
    } finally {
      this.#running = false;
    }
  }

  async #answer(request: Request): Promise<void> {
    const { slots, bucket } = this.#modules;
    const { signal } = this.#framed;
    using slot = await slots.acquire(signal);
    const body = slot === undefined ? 'busy' : await this.#read(request);
    if (!(body instanceof Uint8Array)) {
      await this.#status(request, body);
      return;
    }
    await bucket.take(body.length, signal);
    await this.#send(encodeResponse({ ...request, status: 'ok', length: body.length }));
    for (let at = 0; at < body.length; at += WRITE_BYTES) {
      const part = body.subarray(at, at + WRITE_BYTES);
      await this.#send(part);
      this.#asker.onSent(part.length);
      this.#modules.metrics.uploaded.inc({}, part.length);
    }
    this.#modules.metrics.served.inc({ kind: request.kind, status: 'ok' });
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

  async #status(request: Request, status: PieceStatus): Promise<void> {
    this.#modules.metrics.served.inc({ kind: request.kind, status });
    await this.#send(encodeResponse({ ...request, status, length: 0 }));
  }

  async #send(bytes: Uint8Array): Promise<void> {
    await this.#framed.send(bytes, this.#modules.clock.timeout(DRAIN_DEADLINE_MS));
  }
}
