import type { Digest } from '../../oci/digest.ts';
import type { PieceList } from '../../piece/piece-list.ts';
import type { SourceFault } from '../../piece/exclusion.ts';
import type { PieceSource, UnverifiedPiece } from '../../piece/source.ts';
import type { PeerSession } from './peer-session.ts';

/** Requests kept in flight; more only queue. Measured: two fill a QUIC connection, four a TCP one. */
const DEPTH = { quic: 2, tcp: 4 } as const;

/** One blob of one peer, as the pull room sees it. */
export class PeerSource implements PieceSource {
  readonly kind = 'peer';
  readonly near: boolean;
  readonly depth: number;
  readonly #digest: Digest;
  readonly #session: PeerSession;
  readonly #onBlame: (fault: SourceFault) => void;

  constructor(modules: {
    session: PeerSession;
    digest: Digest;
    near: boolean;
    onBlame: (fault: SourceFault) => void;
  }) {
    this.#session = modules.session;
    this.#digest = modules.digest;
    this.#onBlame = modules.onBlame;
    this.near = modules.near;
    this.depth = DEPTH[modules.session.transport];
  }

  get id(): string {
    return this.#session.id;
  }

  list(options: { max_pieces: number; signal: AbortSignal }): Promise<PieceList> {
    return this.#session.pieces.list(this.#digest, options);
  }

  async fetch(
    index: number,
    length: number,
    options: { signal: AbortSignal; onProgress?: (received_bytes: number) => void },
  ): Promise<UnverifiedPiece> {
    const piece = { digest: this.#digest, index, length };
    const bytes = await this.#session.pieces.piece(piece, options);
    return { index, bytes, release: () => this.#session.pieces.release(bytes) };
  }

  blame(fault: SourceFault): void {
    this.#onBlame(fault);
  }
}
