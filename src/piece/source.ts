import type { Digest } from '../oci/digest.ts';
import type { SourceFault } from './exclusion.ts';
import type { PieceList } from './piece-list.ts';
import type { RequestSize, SourceStanding } from './standing.ts';

/** A piece as it came off the wire. Nobody may use its bytes before the verifier has compared their digest. */
export type UnverifiedPiece = {
  readonly index: number;
  readonly bytes: Uint8Array;
  /** Gives the memory back to the source: called at most once, when nobody looks at the bytes any more. Not calling it costs memory only. */
  readonly release?: () => void;
};

/** What goes with a fault. */
export type FaultFacts = {
  /** What was asked for. Who is too busy for something small is too busy for anything. */
  readonly size?: RequestSize;
  /** When a busy source said that it is to be asked again, in ms from now. */
  readonly retry_after_ms?: number | undefined;
};

/**
 * Something that can hand over pieces of one blob: a peer, or the registry. The pull room plans over these and knows
 * nothing of libp2p or HTTP. Implementations own their connections; a source is for one blob of one pull.
 *
 * Failures of `fetch` and `list` are `DaemonError`s: `unavailable` = busy, try again after `facts.retry_after_ms` (where it says) or
 * elsewhere; `not_found` = does not have it (any more); `protocol_error` = broke the protocol; `deadline_exceeded`, `cancelled`;
 * anything else = gone.
 */
export interface PieceSource {
  /** Stable name of who stands behind it (peer id, registry host); the key for exclusions. */
  readonly id: string;
  readonly kind: 'peer' | 'registry';
  /** True when it is in our zone: such sources are asked before others. */
  readonly near: boolean;
  /** How many requests it takes at once before they only queue (2 on QUIC, 4 on TCP). */
  readonly depth: number;
  /** Of the host behind it, shared by all sources of that host. */
  readonly standing: SourceStanding;
  /** The source's claim of the blob's piece digests. At most `max_pieces` entries are accepted. */
  list(options: {
    max_pieces: number;
    signal: AbortSignal;
    patience_ms?: number;
  }): Promise<PieceList>;
  /**
   * Fetches one piece of `length` bytes. `onProgress` is called with the bytes received so far as they arrive, so that
   * stalls can be told from slowness. `patience_ms` is how long the caller waits for the first of them: a source that
   * cannot begin well within it fails with `unavailable` at once. The returned bytes belong to the caller.
   */
  fetch(
    index: number,
    length: number,
    options: {
      signal: AbortSignal;
      onProgress?: (received_bytes: number) => void;
      patience_ms?: number;
    },
  ): Promise<UnverifiedPiece>;
  /** Tells the source's owner what it did wrong: the owner decides about bans, candidate lists and the standing. */
  blame(fault: SourceFault, facts?: FaultFacts): void;
}

/** Finds sources for a blob from memory: no call of it may cost a round trip. */
export interface SourceFinder {
  /** Sources that hold the whole blob now, best first; empty = a miss, known at once. */
  find(digest: Digest, size_bytes: number): readonly PieceSource[];
}
