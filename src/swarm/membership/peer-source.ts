import { DaemonError, hasCode } from '../../base/errors.ts';
import type { Digest } from '../../oci/digest.ts';
import type { PieceList } from '../../piece/piece-list.ts';
import type { SourceFault } from '../../piece/exclusion.ts';
import type { FaultFacts, PieceSource, UnverifiedPiece } from '../../piece/source.ts';
import type { PeerSession } from './peer-session.ts';
import type { HostStanding } from '../../piece/host-standing.ts';

/** Requests kept in flight; more only queue. Measured: two fill a QUIC connection, four a TCP one. */
const DEPTH = { quic: 2, tcp: 4 } as const;
/** Until a newer connection to the peer has brought its inventory, so that it is found there, in ms. */
const REPLACED_MS = 50;

/** One blob of one peer, as the pull room sees it: on one connection to it. */
export class PeerSource implements PieceSource {
  readonly kind = 'peer';
  readonly near: boolean;
  readonly depth: number;
  readonly standing: HostStanding;
  readonly #digest: Digest;
  readonly #session: PeerSession;
  readonly #isReplaced: () => boolean;
  readonly #onBlame: (fault: SourceFault, facts?: FaultFacts) => void;

  constructor(modules: {
    session: PeerSession;
    standing: HostStanding;
    digest: Digest;
    near: boolean;
    /** Whether the peer is connected otherwise by now. */
    isReplaced: () => boolean;
    onBlame: (fault: SourceFault, facts?: FaultFacts) => void;
  }) {
    this.#session = modules.session;
    this.#digest = modules.digest;
    this.#isReplaced = modules.isReplaced;
    this.#onBlame = modules.onBlame;
    this.standing = modules.standing;
    this.near = modules.near;
    this.depth = DEPTH[modules.session.transport];
  }

  get id(): string {
    return this.#session.id;
  }

  list(options: Parameters<PieceSource['list']>[0]): Promise<PieceList> {
    return this.#onThis(options.signal, this.#session.pieces.list(this.#digest, options));
  }

  async fetch(
    index: number,
    length: number,
    options: Parameters<PieceSource['fetch']>[2],
  ): Promise<UnverifiedPiece> {
    const piece = { digest: this.#digest, index, length };
    const asked = this.#session.pieces.piece(piece, options);
    const bytes = await this.#onThis(options.signal, asked);
    return { index, bytes, release: () => this.#session.pieces.release(bytes) };
  }

  /** A connection that ended because a newer one took its place says nothing about the peer, and neither do requests that were lost with it. */
  blame(fault: SourceFault, facts?: FaultFacts): void {
    const isWeakness = fault === 'gone' || fault === 'stalled' || fault === 'too_slow';
    if (isWeakness && this.#isReplaced()) return;
    this.#onBlame(fault, facts);
  }

  async #onThis<T>(signal: AbortSignal, asked: Promise<T>): Promise<T> {
    try {
      return await asked;
    } catch (error) {
      const isLost = hasCode(error, 'internal') && !signal.aborted;
      if (!isLost || !this.#isReplaced()) throw error;
      const facts = { retry_after_ms: REPLACED_MS };
      throw new DaemonError('unavailable', 'a newer connection took its place', facts, {
        cause: error,
      });
    }
  }
}
