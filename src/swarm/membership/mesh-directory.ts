import type { Digest } from '../../oci/digest.ts';
import type { Demotion, ExclusionReason, SourceFault } from '../../piece/exclusion.ts';
import type { PieceSource, SourceFinder } from '../../piece/source.ts';
import type { Mesh } from './mesh.ts';
import type { SwarmMetrics } from '../metrics.ts';
import type { OwnInventory } from '../inventory/own-inventory.ts';
import type { PeerDirectory } from '../peer-directory.ts';
import type { PeerId } from '../ground/peer-id.ts';
import type { Standings } from './standing.ts';
import type { PeerSession } from './peer-session.ts';
import { PeerSource } from './peer-source.ts';
import { prefixOf } from '../inventory/prefix-set.ts';

/** Why a peer is or is not asked for a blob; `busy` = it is asked only when no candidate is left. */
export type Explanation = { readonly peer: PeerId; readonly reason: 'candidate' | ExclusionReason };

export type DirectoryModules = {
  readonly mesh: Pick<Mesh, 'sessions' | 'has' | 'blame'>;
  readonly own: OwnInventory;
  readonly standings: Standings;
  readonly metrics: Pick<SwarmMetrics, 'excluded'>;
};

type Judged = {
  readonly session: PeerSession;
  readonly excluded: ExclusionReason | undefined;
  readonly demoted: Demotion | undefined;
};

/** Rate assumed of a peer that was never measured: it gets its chance before those known to be slow. */
const UNMEASURED_BYTES_PER_SECOND = 50e6;

/** The full mesh as a directory: every neighbour's inventory is in memory, so nothing here costs a round trip. */
export class MeshDirectory implements PeerDirectory, SourceFinder {
  readonly #modules: DirectoryModules;
  readonly #zone: string;

  constructor(modules: DirectoryModules, config: { readonly zone: string }) {
    this.#modules = modules;
    this.#zone = config.zone;
  }

  announce(digest: Digest): void {
    this.#modules.own.add(digest);
  }

  withdraw(digest: Digest): void {
    this.#modules.own.remove(digest);
  }

  find(digest: Digest): readonly PeerId[];
  find(digest: Digest, size_bytes: number): readonly PieceSource[];
  find(digest: Digest, size_bytes?: number): readonly PeerId[] | readonly PieceSource[] {
    const sessions = this.#candidates(digest);
    return size_bytes === undefined
      ? sessions.map((session) => session.id)
      : sessions.map((session) => this.#source(session, digest));
  }

  /** Every connected or banned peer with the rule that keeps it out, for people who ask why nobody was asked. */
  explain(digest: Digest): readonly Explanation[] {
    const { mesh, standings } = this.#modules;
    const connected = this.#judge(digest).map(
      ({ session, excluded, demoted }): Explanation => ({
        peer: session.id,
        reason: excluded ?? demoted ?? 'candidate',
      }),
    );
    const banned = standings
      .banned()
      .filter((ban) => !mesh.has(ban.id))
      .map((ban) => ({ peer: ban.id, reason: 'banned' as const }));
    return [...connected, ...banned];
  }

  #candidates(digest: Digest): PeerSession[] {
    const judged = this.#judge(digest);
    const usable = judged.filter((j) => j.excluded === undefined);
    const free = usable.filter((j) => j.demoted === undefined);
    // A busy holder is better than none: the pull room waits for it in its own time.
    const chosen = free.length > 0 ? free : usable;
    for (const { excluded, demoted } of judged) {
      const reason = excluded ?? (free.length > 0 ? demoted : undefined);
      if (reason !== undefined) this.#modules.metrics.excluded.inc({ reason });
    }
    return chosen.map((j) => j.session).sort((a, b) => this.#worth(b) - this.#worth(a));
  }

  #judge(digest: Digest): Judged[] {
    const prefix = prefixOf(digest);
    return [...this.#modules.mesh.sessions()].map((session) => ({
      session,
      excluded: session.prefixes.has(prefix)
        ? this.#modules.standings.excluded(session.id)?.reason
        : 'no_content',
      demoted: this.#modules.standings.demoted(session.id),
    }));
  }

  /** Near ones first, then what is left of the measured rate under the load the peer reports. */
  #worth(session: PeerSession): number {
    const rate = this.#modules.standings.rate(session.id) || UNMEASURED_BYTES_PER_SECOND;
    const worth = rate * (1.05 - session.state.load);
    return this.#isNear(session) ? worth + 1e15 : worth;
  }

  #isNear(session: PeerSession): boolean {
    return this.#zone !== '' && session.hello?.zone === this.#zone;
  }

  #source(session: PeerSession, digest: Digest): PeerSource {
    return new PeerSource({
      session,
      digest,
      near: this.#isNear(session),
      onBlame: (fault: SourceFault) => {
        if (fault === 'no_content') session.prefixes.delete(prefixOf(digest));
        this.#modules.mesh.blame(session.id, fault);
      },
    });
  }
}
