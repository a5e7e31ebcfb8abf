import type { Digest } from '../../oci/digest.ts';
import type { Demotion, ExclusionReason } from '../../piece/exclusion.ts';
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

/** Why a peer is asked for a blob, comes last, or is not asked. */
export type Explanation = { readonly peer: PeerId; readonly reason: 'candidate' | ExclusionReason };

export type DirectoryModules = {
  readonly mesh: Pick<Mesh, 'sessions' | 'session' | 'has' | 'blame'>;
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
const UNMEASURED_BYTES_PER_MS = 50_000;

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

  /** Who may be asked now or, being busy, soon; the one to ask first is first. */
  #candidates(digest: Digest): PeerSession[] {
    const chosen: Judged[] = [];
    for (const judged of this.#judge(digest)) {
      const { excluded } = judged;
      if (excluded === undefined || excluded === 'busy') chosen.push(judged);
      else this.#modules.metrics.excluded.inc({ reason: excluded });
    }
    const last = ({ excluded, demoted }: Judged): number =>
      demoted !== undefined ? 2 : excluded !== undefined ? 1 : 0;
    return chosen
      .sort((a, b) => last(a) - last(b) || this.#worth(b.session) - this.#worth(a.session))
      .map((j) => j.session);
  }

  #judge(digest: Digest): Judged[] {
    const prefix = prefixOf(digest);
    return [...this.#modules.mesh.sessions()].map((session) => {
      const standing = this.#modules.standings.of(session.id);
      const excluded = session.prefixes.has(prefix) ? standing.excluded()?.reason : 'no_content';
      return { session, excluded, demoted: standing.demoted() };
    });
  }

  /** Near ones first, then what is left of the measured rate under the load the peer reports. */
  #worth(session: PeerSession): number {
    const rate = this.#modules.standings.of(session.id).rate ?? UNMEASURED_BYTES_PER_MS;
    const worth = rate * (1.05 - session.state.load);
    return this.#isNear(session) ? worth + 1e15 : worth;
  }

  #isNear(session: PeerSession): boolean {
    return this.#zone !== '' && session.hello?.zone === this.#zone;
  }

  #source(session: PeerSession, digest: Digest): PeerSource {
    const { mesh, standings } = this.#modules;
    return new PeerSource({
      session,
      standing: standings.of(session.id),
      digest,
      near: this.#isNear(session),
      isReplaced: () =>
        session.ended === 'replaced' ||
        (mesh.has(session.id) && mesh.session(session.id) !== session),
      onBlame: (fault, facts) => {
        if (fault === 'no_content') session.prefixes.delete(prefixOf(digest));
        mesh.blame(session.id, fault, facts);
      },
    });
  }
}
