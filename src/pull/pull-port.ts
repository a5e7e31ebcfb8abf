import type { Digest } from '../oci/digest.ts';
import type { StagedBlob } from '../store/blob-store.ts';

/** How a pull session ended for those who wait. */
export type PullOutcome =
  /** The whole blob is published in the store: adopt it. */
  | { readonly kind: 'complete' }
  /** Peers ran dry: `staged.prefix_bytes` contiguous bytes agree with the piece list; the rest is the registry's. */
  | {
      readonly kind: 'prefix';
      readonly staged: StagedBlob /** True when nobody else waits for it, so the file may be moved. */;
      readonly sole: boolean;
    };

/** One waiter's hold on a pull session. Release it in any case; the session outlives a cancelled waiter for a while. */
export interface PullTicket {
  /** Memory. Contiguous bytes that are here, for `Status`. */
  progress_bytes(): number;
  /** Waits for the end of the session; rejects only with the signal's reason. Never fails because peers do. */
  settled(signal: AbortSignal): Promise<PullOutcome>;
  /** The waiter is done with the outcome, or gone. Idempotent. */
  release(): void;
}

/** What a door needs of the pull room. */
export interface PullPort {
  /**
   * Memory, at once: opens or joins the session of the digest. `undefined` = nobody has it (a miss costs no round
   * trip), or the session bound is reached.
   */
  join(target: {
    readonly digest: Digest;
    readonly size_bytes: number;
    readonly small: boolean;
  }): PullTicket | undefined;
  /** A manifest was committed: start the sessions of what it names, before containerd asks. Returns at once; never throws. */
  manifestCommitted(digest: Digest): void;
  /** containerd's commit of a blob that began with a prefix of ours failed its digest: whoever lied pays once the true bytes are here. */
  prefixRefuted(digest: Digest): void;
}
