import type { Clock } from '../../base/clock.ts';
import { isVerdict, type SourceFault, type Verdict } from '../../piece/exclusion.ts';
import type { FaultFacts } from '../../piece/source.ts';
import { MAX_STANDINGS } from '../ground/limits.ts';
import type { SwarmMetrics } from '../metrics.ts';
import type { PeerId } from '../ground/peer-id.ts';
import { HostStanding } from '../../piece/host-standing.ts';

/** A peer that is banned now, and the fault that led to it. */
export type Ban = {
  readonly id: PeerId;
  readonly reason: Verdict;
  readonly expires_in_ms: number;
};

/**
 * The standings of all peers we had to do with, by peer id, so that they outlive connections. Bounded: the peer that was forgotten
 * longest goes first, banned ones last.
 */
export class Standings {
  readonly #standings = new Map<PeerId, HostStanding>();
  readonly #clock: Pick<Clock, 'now_ms'>;
  readonly #metrics: Pick<SwarmMetrics, 'bans'>;
  readonly #config: { readonly ban_ms: number };

  constructor(
    modules: { clock: Pick<Clock, 'now_ms'>; metrics: Pick<SwarmMetrics, 'bans'> },
    config: { readonly ban_ms: number },
  ) {
    this.#clock = modules.clock;
    this.#metrics = modules.metrics;
    this.#config = config;
  }

  /** The standing of a peer; a fresh one when it is not known. */
  of(peer: PeerId): HostStanding {
    const known = this.#standings.get(peer);
    if (known === undefined && this.#standings.size >= MAX_STANDINGS) this.#forget();
    const standing = known ?? new HostStanding({ clock: this.#clock }, this.#config);
    // Moves to the young end of the map.
    this.#standings.delete(peer);
    this.#standings.set(peer, standing);
    return standing;
  }

  /** Notes a fault. True = the peer is banned now and its connection must go. */
  fault(peer: PeerId, fault: SourceFault, facts?: FaultFacts): boolean {
    const isBanned = this.of(peer).fault(fault, facts);
    if (isVerdict(fault)) this.#metrics.bans.inc({ fault });
    return isBanned;
  }

  /** Rest of the ban in ms; 0 = not banned. */
  banned_ms(peer: PeerId): number {
    return this.#standings.get(peer)?.banned_ms ?? 0;
  }

  /** Every peer that is banned now. */
  banned(): readonly Ban[] {
    return [...this.#standings]
      .map(([id, { verdict, banned_ms }]) => ({ id, reason: verdict, expires_in_ms: banned_ms }))
      .filter((ban) => ban.expires_in_ms > 0);
  }

  #forget(): void {
    let victim: PeerId | undefined;
    for (const [peer, { banned_ms, in_flight }] of this.#standings) {
      victim ??= peer;
      if (banned_ms <= 0 && in_flight === 0) {
        victim = peer;
        break;
      }
    }
    if (victim !== undefined) this.#standings.delete(victim);
  }
}
