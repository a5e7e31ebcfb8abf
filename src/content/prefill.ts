import { hasCode } from '../base/errors.ts';
import type { Clock } from '../base/clock.ts';
import type { Digest } from '../oci/digest.ts';
import type { Logger } from '../ops/logger.ts';
import type { PullOutcome, PullTicket } from '../pull/pull-port.ts';
import type { Ingest } from '../store/blob-store.ts';
import type { ContentMetrics, PrefillOutcome } from './metrics.ts';
import type { PullWaits } from './pull-waits.ts';

/**
 * Longest time without a new byte before a writer stops waiting, in ms. The pull room ends its sessions long before; this
 * only keeps a fault there from holding a pull for ever, and stays well below CRI's progress limit of 5 minutes.
 */
export type PrefillConfig = {
  readonly wait_stall_ms: number;
  /**
   * `isolated`: no writer gets a byte that it has not sent itself. A ref names a digest and a size, and who knows both is not thereby
   * entitled to the bytes of another namespace; a puller cannot be told from somebody who only claims to be one.
   */
  readonly sharing_policy: 'shared' | 'isolated';
};

export const DEFAULT_PREFILL_CONFIG: PrefillConfig = {
  wait_stall_ms: 90_000,
  sharing_policy: 'shared',
};

type PrefillModules = {
  readonly waits: PullWaits;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly metrics: ContentMetrics;
};

/**
 * One stream's hope for bytes from elsewhere: a blob that is in the store already (`ticket` undefined), or a pull session. `settle` is
 * called at most once; `leave` in any case.
 */
export class Prefill {
  readonly #modules: PrefillModules;
  readonly #config: PrefillConfig;
  readonly #ref: string;
  readonly #digest: Digest;
  readonly #ticket: PullTicket | undefined;
  #left = false;

  constructor(
    modules: PrefillModules,
    config: PrefillConfig,
    target: { ref: string; digest: Digest; ticket: PullTicket | undefined },
  ) {
    this.#modules = modules;
    this.#config = config;
    this.#ref = target.ref;
    this.#digest = target.digest;
    this.#ticket = target.ticket;
    if (this.#ticket !== undefined) modules.waits.add(this.#ref, this.#ticket);
  }

  /**
   * Waits until no more is to be had and moves what there is into the ingest. Rejects only with the reason of `signal`: whatever
   * else goes wrong, containerd continues from the ingest's offset.
   */
  async settle(ingest: Ingest, signal: AbortSignal): Promise<void> {
    const { clock, logger, metrics } = this.#modules;
    const start_ms = clock.now_ms();
    const before = ingest.status().offset_bytes;
    let outcome: PrefillOutcome = 'cancelled';
    try {
      outcome = await this.#take(ingest, signal);
    } catch (err) {
      signal.throwIfAborted();
      outcome = 'failed';
      logger.warn(
        { digest: this.#digest, err },
        'bytes from peers could not be used, containerd continues from the registry',
      );
    } finally {
      this.leave();
      metrics.prefills.inc({ outcome });
      metrics.wait_seconds.observe({}, (clock.now_ms() - start_ms) / 1000);
    }
    const gained = ingest.status().offset_bytes - before;
    if (gained <= 0) return;
    metrics.prefilled_bytes.inc({}, gained);
    logger.info(
      { digest: this.#digest, bytes: gained, outcome },
      'ingest filled without the registry',
    );
  }

  /** The stream waits no longer. Idempotent. */
  leave(): void {
    if (this.#left || this.#ticket === undefined) return;
    this.#left = true;
    this.#modules.waits.remove(this.#ref, this.#ticket);
    this.#ticket.release();
  }

  async #take(ingest: Ingest, signal: AbortSignal): Promise<PrefillOutcome> {
    if (this.#ticket === undefined) return (await this.#adopt(ingest)) ? 'local' : 'miss';
    const outcome = await this.#outcome(this.#ticket, signal);
    // The client may have gone in the same moment; then its lock must not be held by a copy.
    signal.throwIfAborted();
    if (outcome === undefined) return 'stalled';
    if (outcome.kind === 'complete') return (await this.#adopt(ingest)) ? 'complete' : 'failed';
    if (outcome.staged.prefix_bytes <= ingest.status().offset_bytes) return 'miss';
    await ingest.takePrefix(outcome.staged, { move: outcome.sole });
    this.#modules.waits.markPrefixed(this.#ref);
    return 'prefix';
  }

  /** False when the blob has gone in the meantime. */
  async #adopt(ingest: Ingest): Promise<boolean> {
    try {
      await ingest.adopt(this.#digest);
      return true;
    } catch (error) {
      if (hasCode(error, 'not_found')) return false;
      throw error;
    }
  }

  /** The session's end, or undefined when it has not delivered a byte for too long. */
  async #outcome(ticket: PullTicket, signal: AbortSignal): Promise<PullOutcome | undefined> {
    const waiting = new AbortController();
    const combined = AbortSignal.any([signal, waiting.signal]);
    const settled = ticket.settled(combined);
    // The loser of the race below is cancelled at the end, and nobody looks at it then.
    settled.catch(() => undefined);
    try {
      for (;;) {
        const progress = ticket.progress_bytes();
        const stall = this.#modules.clock
          .sleep(this.#config.wait_stall_ms, { signal: combined })
          .then(() => undefined);
        stall.catch(() => undefined);
        const outcome = await Promise.race([settled, stall]);
        if (outcome !== undefined || ticket.progress_bytes() <= progress) return outcome;
      }
    } finally {
      waiting.abort();
    }
  }
}
