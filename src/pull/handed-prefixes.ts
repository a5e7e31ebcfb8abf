import type { Digest } from '../oci/digest.ts';
import type { Logger } from '../ops/logger.ts';
import type { PieceList } from '../piece/piece-list.ts';
import type { PieceSource } from '../piece/source.ts';
import type { SharedBlobs } from '../store/blob-store.ts';
import { PULL_LIMITS } from './pull-config.ts';
import { difference } from './working-copy.ts';

/** On whose word a prefix was handed out, and what they said. */
export type Vouched = { readonly list: PieceList; readonly authors: readonly PieceSource[] };

type Entry = Vouched & { refuted: boolean };

/**
 * Prefixes given to containerd lately, oldest first. When its commit fails, the prefix may have been a lie, or have been damaged here, or what
 * came after it was wrong. Nobody is blamed before the blob is here otherwise and its own piece list is known; until then no
 * prefix of it is handed out again, for it might be the same lie.
 */
export class HandedPrefixes implements Disposable {
  readonly #shared: Pick<SharedBlobs, 'onShared' | 'pieceList'>;
  readonly #logger: Logger;
  readonly #entries = new Map<Digest, Entry>();
  readonly #unsubscribe: () => void;

  constructor(modules: { shared: Pick<SharedBlobs, 'onShared' | 'pieceList'>; logger: Logger }) {
    this.#shared = modules.shared;
    this.#logger = modules.logger;
    this.#unsubscribe = this.#shared.onShared(({ kind, digest }) => {
      if (kind === 'added') void this.#settle(digest);
    });
  }

  /** True once a prefix of the blob was refuted: only the whole of it may be given. */
  doubted(digest: Digest): boolean {
    return this.#entries.get(digest)?.refuted === true;
  }

  add(digest: Digest, vouched: Vouched): void {
    this.#entries.delete(digest);
    this.#entries.set(digest, { ...vouched, refuted: false });
    const oldest = this.#entries.keys().next().value;
    if (this.#entries.size > PULL_LIMITS.delivered_max && oldest !== undefined) {
      this.#entries.delete(oldest);
    }
  }

  /** containerd's commit failed. */
  refute(digest: Digest): void {
    const entry = this.#entries.get(digest);
    if (entry === undefined || entry.refuted) return;
    entry.refuted = true;
    const { length } = entry.authors;
    this.#logger.warn(
      { digest, authors: length },
      'a blob that began with bytes from peers failed',
    );
  }

  [Symbol.dispose](): void {
    this.#unsubscribe();
  }

  /** The blob is here: its own list says who was right. Never rejects. */
  async #settle(digest: Digest): Promise<void> {
    const entry = this.#entries.get(digest);
    if (entry === undefined) return;
    this.#entries.delete(digest);
    if (!entry.refuted) return;
    try {
      const list = await this.#shared.pieceList(digest);
      const wrong = [...difference(list, entry.list)].length;
      if (wrong === 0) return;
      this.#logger.warn(
        { digest, wrong },
        'a prefix from peers was wrong; who vouched for it pays',
      );
      for (const source of entry.authors) source.blame('wrong_list');
    } catch (error) {
      // The blob has gone again: nothing is proved.
      this.#logger.debug({ digest, err: error }, 'a doubted prefix cannot be compared');
    }
  }
}
