import type { Digest } from '../../oci/digest.ts';
import type { PieceSource, SourceFault, SourceFinder } from '../../piece/source.ts';
import type { Mesh } from './mesh.ts';
import type { RejectReason, SwarmMetrics } from '../metrics.ts';
import type { OwnInventory } from '../inventory/own-inventory.ts';
import type { PeerDirectory } from '../peer-directory.ts';
import type { PeerId } from '../ground/peer-id.ts';
import type { PeerScores } from './standing.ts';
import type { PeerSession } from './peer-session.ts';
import { PeerSource } from './peer-source.ts';
import { prefixOf } from '../inventory/prefix-set.ts';

/** Why a peer is or is not asked for a blob. */
export type Explanation = { readonly peer: PeerId; readonly reason: 'candidate' | RejectReason };

export type DirectoryModules = {
  readonly mesh: Pick<Mesh, 'sessions' | 'has' | 'blame'>;
  readonly own: OwnInventory;
  readonly scores: PeerScores;
  readonly metrics: Pick<SwarmMetrics, 'rejected'>;
};

type Judged = { readonly session: PeerSession; readonly reason: Explanation['reason'] };

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
    const { mesh, scores } = this.#modules;
    const connected = this.#judge(digest).map(({ session, reason }) => ({
      peer: session.id,
      reason,
    }));
    const banned = scores
      .banned()
      .filter((ban) => !mesh.has(ban.id))
      .map((ban) => ({ peer: ban.id, reason: 'banned' as const }));
    return [...connected, ...banned];
  }

  #candidates(digest: Digest): PeerSession[] {
    const judged = this.#judge(digest);
    const free = judged.filter((j) => j.reason === 'candidate');
    // A busy holder is better than none: the pull room waits for it in its own time.
    const chosen = free.length > 0 ? free : judged.filter((j) => j.reason === 'busy');
    for (const { reason } of judged) {
      if (reason !== 'candidate') this.#modules.metrics.rejected.inc({ reason });
    }
    return chosen.map((j) => j.session).sort((a, b) => this.#worth(b) - this.#worth(a));
  }

  #judge(digest: Digest): Judged[] {
    const prefix = prefixOf(digest);
    return [...this.#modules.mesh.sessions()].map((session) => ({
      session,
      reason: session.prefixes.has(prefix)
        ? (this.#modules.scores.exclusion(session.id) ?? 'candidate')
        : 'no_content',
    }));
  }

  /** Near ones first, then what is left of the measured rate under the load the peer reports. */
  #worth(session: PeerSession): number {
    const rate = this.#modules.scores.rate(session.id) || UNMEASURED_BYTES_PER_SECOND;
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
