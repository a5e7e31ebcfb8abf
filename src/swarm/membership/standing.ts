import type { Clock } from '../../base/clock.ts';
import {
  type Demotion,
  type Exclusion,
  isVerdict,
  type SourceFault,
  type Verdict,
} from '../../piece/exclusion.ts';
import { MAX_STANDINGS } from '../ground/limits.ts';
import type { SwarmMetrics } from '../metrics.ts';
import type { PeerId } from '../ground/peer-id.ts';

/** Weight of the newest measurement: the last ten or so decide. */
const EWMA_WEIGHT = 0.2;
/** A peer that stalled is left alone this long, in ms, whatever its addresses promise. */
const STALLED_MS = 30_000;
/** One whose connection broke comes back sooner: most often its daemon was restarted. */
const GONE_MS = 5000;
/** A busy peer comes last this long, in ms: about the time of one piece at 10 MB/s. */
const BUSY_MS = 500;
/** Bans double up to this many times. */
const MAX_DOUBLINGS = 6;

/** Reasons the swarm excludes a host for, the gravest first. */
const EXCLUDING = ['banned', 'stalled', 'gone'] as const;

type Standing = {
  rate_bytes_per_second: number;
  first_byte_ms: number;
  readonly excluded_until_ms: Record<(typeof EXCLUDING)[number], number>;
  busy_until_ms: number;
  bans: number;
  verdict: Verdict;
};

/** A peer that is banned now, and the fault that led to it. */
export type Ban = {
  readonly id: PeerId;
  readonly reason: Verdict;
  readonly expires_in_ms: number;
};

/**
 * What we remember of each peer: measured speed, exclusions, bans. Only our own experience counts, never a third party's
 * word. Bounded: the peer that was forgotten longest goes first, banned ones last.
 */
export class Standings {
  readonly #standings = new Map<PeerId, Standing>();
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
    const standing = this.#of(peer);
    const rate = (bytes / Math.max(elapsed_ms, 1)) * 1000;
    const mix = (old: number, now: number): number =>
      old === 0 ? now : old + EWMA_WEIGHT * (now - old);
    standing.rate_bytes_per_second = mix(standing.rate_bytes_per_second, rate);
    standing.first_byte_ms = mix(standing.first_byte_ms, Math.max(first_byte_ms, 0));
  }

  /** Notes a fault. True = the peer is banned now and its connection must go. */
  fault(peer: PeerId, fault: SourceFault): boolean {
    const standing = this.#of(peer);
    const now_ms = this.#clock.now_ms();
    const { excluded_until_ms } = standing;
    if (isVerdict(fault)) {
      excluded_until_ms.banned =
        now_ms + this.#ban_ms * 2 ** Math.min(standing.bans, MAX_DOUBLINGS);
      standing.bans += 1;
      standing.verdict = fault;
      this.#metrics.bans.inc({ fault });
      return true;
    }
    if (fault === 'stalled') excluded_until_ms.stalled = now_ms + STALLED_MS;
    if (fault === 'gone') excluded_until_ms.gone = now_ms + GONE_MS;
    if (fault === 'busy') standing.busy_until_ms = now_ms + BUSY_MS;
    return false;
  }

  /** Why the peer is no candidate now and not to be dialled, whatever it holds. */
  excluded(peer: PeerId): Exclusion | undefined {
    const standing = this.#standings.get(peer);
    if (standing === undefined) return undefined;
    const now_ms = this.#clock.now_ms();
    const reason = EXCLUDING.find((word) => standing.excluded_until_ms[word] > now_ms);
    return reason && { reason, until_ms: standing.excluded_until_ms[reason] };
  }

  /** Why the peer comes last among the candidates now. */
  demoted(peer: PeerId): Demotion | undefined {
    const until_ms = this.#standings.get(peer)?.busy_until_ms ?? -Infinity;
    return until_ms > this.#clock.now_ms() ? 'busy' : undefined;
  }

  /** Measured bytes per second; 0 = not measured yet. */
  rate(peer: PeerId): number {
    return this.#standings.get(peer)?.rate_bytes_per_second ?? 0;
  }

  /** Rest of the ban in ms; 0 = not banned. */
  banned_ms(peer: PeerId): number {
    const until_ms = this.#standings.get(peer)?.excluded_until_ms.banned ?? 0;
    return Math.max(0, until_ms - this.#clock.now_ms());
  }

  /** Every peer that is banned now. */
  banned(): readonly Ban[] {
    return [...this.#standings]
      .map(([id, { verdict }]) => ({ id, reason: verdict, expires_in_ms: this.banned_ms(id) }))
      .filter((ban) => ban.expires_in_ms > 0);
  }

  #of(peer: PeerId): Standing {
    const known = this.#standings.get(peer);
    if (known !== undefined) {
      // Moves to the young end of the map.
      this.#standings.delete(peer);
      this.#standings.set(peer, known);
      return known;
    }
    if (this.#standings.size >= MAX_STANDINGS) this.#forget();
    const standing: Standing = {
      rate_bytes_per_second: 0,
      first_byte_ms: 0,
      excluded_until_ms: { banned: -Infinity, stalled: -Infinity, gone: -Infinity },
      busy_until_ms: -Infinity,
      bans: 0,
      verdict: 'protocol',
    };
    this.#standings.set(peer, standing);
    return standing;
  }

  #forget(): void {
    const now_ms = this.#clock.now_ms();
    let victim: PeerId | undefined;
    for (const [peer, { excluded_until_ms }] of this.#standings) {
      victim ??= peer;
      if (excluded_until_ms.banned <= now_ms) {
        victim = peer;
        break;
      }
    }
    if (victim !== undefined) this.#standings.delete(victim);
  }
}
