import type { Stream } from '@libp2p/interface';
import type { Clock } from '../../base/clock.ts';
import type { DaemonError } from '../../base/errors.ts';
import type { Digest } from '../../oci/digest.ts';
import type { PieceList } from '../../piece/piece-list.ts';
import { QUICK_BYTES } from '../ground/limits.ts';
import type { PieceBuffers } from './piece-buffers.ts';
import { decodeList } from './piece-protocol.ts';
import { RequestStream } from './request-stream.ts';

/** What the client reports about its peer. */
export interface PieceClientEvents {
  /**
   * A whole piece of more than 64 KiB: its bytes, the time they took, and the time to the first of them. Small answers tell nothing about
   * a peer's rate.
   */
  onReceived(bytes: number, elapsed_ms: number, first_byte_ms: number): void;
  /** Bytes off the wire, those of abandoned answers included. */
  onBytes(bytes: number): void;
  /** The peer broke the protocol: its connection is to be closed. */
  onProtocolError(error: DaemonError): void;
}

type Asking = {
  readonly signal: AbortSignal;
  /** How long the asker waits for the first byte, in ms; the peer says "busy" rather than let it run out. */
  readonly patience_ms?: number;
};

/**
 * Our requests to one peer: pieces on one long-lived stream, lists and blobs up to 64 KiB on another, so that what is small never queues
 * behind what is large.
 */
export class PieceClient {
  readonly #bulk: RequestStream;
  readonly #quick: RequestStream;
  readonly #events: PieceClientEvents;
  readonly #buffers: PieceBuffers;

  constructor(modules: {
    open: (signal: AbortSignal) => Promise<Stream>;
    clock: Clock;
    events: PieceClientEvents;
    buffers: PieceBuffers;
  }) {
    const { events } = modules;
    this.#events = events;
    this.#buffers = modules.buffers;
    this.#bulk = new RequestStream(modules);
    this.#quick = new RequestStream({
      ...modules,
      events: {
        onReceived: () => undefined,
        onBytes: (bytes) => events.onBytes(bytes),
        onProtocolError: (error) => events.onProtocolError(error),
      },
    });
  }

  /** The bytes of one piece, owned by the caller, who may `release` them. Errors as of `PieceSource.fetch`. */
  piece(
    piece: { readonly digest: Digest; readonly index: number; readonly length: number },
    options: Asking & { readonly onProgress?: ((received_bytes: number) => void) | undefined },
  ): Promise<Uint8Array> {
    const { patience_ms = 0 } = options;
    const stream = piece.length <= QUICK_BYTES ? this.#quick : this.#bulk;
    return stream.request((id) => ({ kind: 'piece', id, ...piece, patience_ms }), options);
  }

  /** The caller of `piece` is done with its bytes: the next piece may be written there. */
  release(bytes: Uint8Array): void {
    this.#buffers.give(bytes);
  }

  /** The peer's claim of the piece digests. Errors as of `PieceSource.list`. */
  async list(
    digest: Digest,
    options: Asking & { readonly max_pieces: number },
  ): Promise<PieceList> {
    const { max_pieces, patience_ms = 0 } = options;
    const body = await this.#quick.request(
      (id) => ({ kind: 'list', id, digest, max_pieces, patience_ms }),
      options,
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
    this.#bulk.close(reason);
    this.#quick.close(reason);
  }
}
