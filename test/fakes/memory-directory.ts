import type { Digest } from '../../src/oci/digest.ts';
import type { PeerId } from '../../src/swarm/ground/peer-id.ts';
import type { PeerDirectory } from '../../src/swarm/peer-directory.ts';

/** A directory without a network: hosts around one table, where news is everywhere at once. */
export class MemoryDirectory implements PeerDirectory, Disposable {
  readonly #id: PeerId;
  readonly #table: Map<PeerId, Set<Digest>>;

  constructor(id: PeerId, table: Map<PeerId, Set<Digest>>) {
    this.#id = id;
    this.#table = table;
    table.set(id, new Set());
  }

  announce(digest: Digest): void {
    this.#table.get(this.#id)?.add(digest);
  }

  withdraw(digest: Digest): void {
    this.#table.get(this.#id)?.delete(digest);
  }

  find(digest: Digest): readonly PeerId[] {
    return [...this.#table]
      .filter(([id, blobs]) => id !== this.#id && blobs.has(digest))
      .map(([id]) => id);
  }

  /** The host leaves. */
  [Symbol.dispose](): void {
    this.#table.delete(this.#id);
  }
}
