import type { Digest } from '../../oci/digest.ts';
import { type Prefix, prefixOf } from './prefix-set.ts';

type Listener = (prefix: Prefix, added: boolean) => void;

/** What this host announces, kept in memory, with those who must hear of changes. */
export class OwnInventory {
  readonly #blobs = new Map<Digest, Prefix>();
  readonly #listeners = new Set<Listener>();
  #muted = false;

  get size(): number {
    return this.#blobs.size;
  }

  add(digest: Digest): void {
    if (this.#blobs.has(digest)) return;
    const prefix = prefixOf(digest);
    this.#blobs.set(digest, prefix);
    if (!this.#muted) this.#tell(prefix, true);
  }

  remove(digest: Digest): void {
    const prefix = this.#blobs.get(digest);
    if (prefix === undefined) return;
    this.#blobs.delete(digest);
    if (!this.#muted) this.#tell(prefix, false);
  }

  /** True: a host with a full disk announces nothing more, though it still serves and pulls. */
  mute(muted: boolean): void {
    if (this.#muted === muted) return;
    this.#muted = muted;
    for (const prefix of this.#blobs.values()) this.#tell(prefix, !muted);
  }

  /** What peers may know now. */
  prefixes(): Iterable<Prefix> {
    return this.#muted ? [] : this.#blobs.values();
  }

  /** Returns the unsubscribe function. */
  onChange(listener: Listener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  #tell(prefix: Prefix, added: boolean): void {
    for (const listener of this.#listeners) listener(prefix, added);
  }
}
