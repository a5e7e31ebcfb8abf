import type { Clock } from '../../base/clock.ts';
import type { SourceFault } from '../../piece/source.ts';
import { MAX_SCORED_PEERS } from '../ground/limits.ts';
import type { SwarmMetrics } from '../metrics.ts';
import type { PeerId } from '../ground/peer-id.ts';

/** Weight of the newest measurement: the last ten or so decide. */
const EWMA_WEIGHT = 0.2;
/** A peer that stalled is left alone this long, in ms, whatever its addresses promise. */
const STALLED_BACKOFF_MS = 30_000;
/** One whose connection broke comes back sooner: most often its daemon was restarted. */
const GONE_BACKOFF_MS = 5000;
/** A busy peer is asked again after this long, in ms: about the time of one piece at 10 MB/s. */
const BUSY_MS = 500;
/** Bans double up to this many times. */
const MAX_DOUBLINGS = 6;

type Score = {
  rate_bytes_per_second: number;
  first_byte_ms: number;
  backoff_until_ms: number;
  busy_until_ms: number;
  banned_until_ms: number;
  bans: number;
  ban_fault: SourceFault;
};

/** A peer that is banned now, and the fault that led to it. */
export type Ban = {
  readonly id: PeerId;
  readonly reason: SourceFault;
  readonly expires_in_ms: number;
};

/**
 * What we remember of each peer: measured speed, backoffs, bans. Only our own experience counts, never a third party's
 * word. Bounded: the peer that was forgotten longest goes first, banned ones last.
 */
export class PeerScores {
  readonly #scores = new Map<PeerId, Score>();
  readonly #clock: Pick<Clock, 'now_ms'>;
  readonly #metrics: Pick<SwarmMetrics, 'bans'>;
  readonly #ban_ms: number;

  constructor(
    modules: { clock: Pick<Clock, 'now_ms'>; metrics: Pick<SwarmMetrics, 'bans'> },
    config: { readonly ban_ms: number },
  ) {
    this.#clock = modules.clock;
    this.#metrics = modules.metrics;
    this.#ban_ms = config.ban_ms;
  }

  /** Notes a whole answer of the peer. */
  measured(peer: PeerId, bytes: number, elapsed_ms: number, first_byte_ms: number): void {
    const score = this.#of(peer);
    const rate = (bytes / Math.max(elapsed_ms, 1)) * 1000;
    const mix = (old: number, now: number): number =>
      old === 0 ? now : old + EWMA_WEIGHT * (now - old);
    score.rate_bytes_per_second = mix(score.rate_bytes_per_second, rate);
    score.first_byte_ms = mix(score.first_byte_ms, Math.max(first_byte_ms, 0));
  }

  /** Notes a fault. True = the peer is banned now and its connection must go. */
  fault(peer: PeerId, fault: SourceFault): boolean {
    const score = this.#of(peer);
    const now_ms = this.#clock.now_ms();
    switch (fault) {
      case 'wrong_piece':
      case 'wrong_list':
      case 'protocol':
        score.banned_until_ms = now_ms + this.#ban_ms * 2 ** Math.min(score.bans, MAX_DOUBLINGS);
        score.bans += 1;
        score.ban_fault = fault;
        this.#metrics.bans.inc({ fault });
        return true;
      case 'stalled':
      case 'gone':
        score.backoff_until_ms = Math.max(
          score.backoff_until_ms,
          now_ms + (fault === 'stalled' ? STALLED_BACKOFF_MS : GONE_BACKOFF_MS),
        );
        return false;
      case 'busy':
        score.busy_until_ms = now_ms + BUSY_MS;
        return false;
      case 'no_content':
        return false;
    }
  }

  /** Why the peer is no candidate now, whatever it holds. */
  exclusion(peer: PeerId): 'banned' | 'backoff' | 'busy' | undefined {
    const score = this.#scores.get(peer);
    if (score === undefined) return undefined;
    const now_ms = this.#clock.now_ms();
    if (score.banned_until_ms > now_ms) return 'banned';
    if (score.backoff_until_ms > now_ms) return 'backoff';
    return score.busy_until_ms > now_ms ? 'busy' : undefined;
  }

  /** Measured bytes per second; 0 = not measured yet. */
  rate(peer: PeerId): number {
    return this.#scores.get(peer)?.rate_bytes_per_second ?? 0;
  }

  /** Rest of the ban in ms; 0 = not banned. */
  banned_ms(peer: PeerId): number {
    const until_ms = this.#scores.get(peer)?.banned_until_ms ?? 0;
    return Math.max(0, until_ms - this.#clock.now_ms());
  }

  /** Every peer that is banned now. */
  banned(): readonly Ban[] {
    return [...this.#scores]
      .map(([id, { ban_fault }]) => ({ id, reason: ban_fault, expires_in_ms: this.banned_ms(id) }))
      .filter((ban) => ban.expires_in_ms > 0);
  }

  #of(peer: PeerId): Score {
    const known = this.#scores.get(peer);
    if (known !== undefined) {
      // Moves to the young end of the map.
      this.#scores.delete(peer);
      this.#scores.set(peer, known);
      return known;
    }
    if (this.#scores.size >= MAX_SCORED_PEERS) this.#evict();
    const score: Score = {
      rate_bytes_per_second: 0,
      first_byte_ms: 0,
      backoff_until_ms: -Infinity,
      busy_until_ms: -Infinity,
      banned_until_ms: -Infinity,
      bans: 0,
      ban_fault: 'protocol',
    };
    this.#scores.set(peer, score);
    return score;
  }

  #evict(): void {
    const now_ms = this.#clock.now_ms();
    let victim: PeerId | undefined;
    for (const [peer, score] of this.#scores) {
      victim ??= peer;
      if (score.banned_until_ms <= now_ms) {
        victim = peer;
        break;
      }
    }
    if (victim !== undefined) this.#scores.delete(victim);
  }
}
