import type { Digest } from '../../oci/digest.ts';
import type { Logger } from '../../ops/logger.ts';
import { PIECE_BYTES } from '../../piece/layout.ts';
import type { BlobInfo } from '../blob-store.ts';
import type { Labels } from './labels.ts';

/**
 * Where a blob stands. `owned`: containerd has committed or adopted it; it lies under `blobs/`. `published`: verified, durable and under
 * `blobs/`, so that a commit or an adoption costs nothing, but not listed; containerd has not taken it yet. `cache`: in our own folder, kept
 * for peers, and unknown to containerd until it is verified anew and published.
 */
export type BlobState = 'owned' | 'published' | 'cache';

/** A committed blob in memory. Changed only through the index. */
export type BlobEntry = {
  readonly digest: Digest;
  readonly size_bytes: number;
  created_ns: bigint;
  updated_ns: bigint;
  labels: Labels;
  state: BlobState;
  /** Ingests that hold it, and reads of all of it: it stays where it is while there are any. */
  pins: number;
  /** Published, and containerd has not asked for it yet: stays under `blobs/` until this time of the clock, in ms. */
  kept_until_ms: number;
  /** Its piece list is known, so peers may see it. */
  listed: boolean;
  /** It has left the store; whoever still holds the entry must let go. */
  gone: boolean;
};

export type SharedEvent = { readonly kind: 'added' | 'removed'; readonly digest: Digest };

/** No labels; shared by all entries without any. */
export const NO_LABELS: Labels = Object.freeze({});

/**
 * All committed blobs in memory: as many as there are files, some 300 bytes each. Knows no disk. While it is being filled, a blob that is asked for by its
 * digest is looked for by whoever fills it; only counts, sums and walks speak of those known so far.
 */
export class BlobIndex {
  readonly #logger: Logger;
  readonly #entries = new Map<Digest, BlobEntry>();
  /** Cache blobs, the longest unused first. */
  readonly #cache = new Map<Digest, BlobEntry>();
  /** Published blobs, the oldest first. */
  readonly #published = new Set<BlobEntry>();
  readonly #listeners = new Set<(event: SharedEvent) => void>();
  #cache_bytes = 0;
  #sharing = true;
  /** Until all blobs are known. */
  #look: ((digest: Digest) => BlobEntry | undefined) | undefined;
  /** Digests that left, or are being published, before all blobs are known: what lies on the disk under them is not ours to find. As many as calls came meanwhile. */
  readonly #settled = new Set<Digest>();

  constructor(modules: { logger: Logger }) {
    this.#logger = modules.logger;
  }

  get size(): number {
    return this.#entries.size;
  }

  get cache_count(): number {
    return this.#cache.size;
  }

  get published_count(): number {
    return this.#published.size;
  }

  get cache_bytes(): number {
    return this.#cache_bytes;
  }

  /** False: it is being filled. */
  get complete(): boolean {
    return this.#look === undefined;
  }

  /** From now until `completed`, `look` finds (and adds) what is asked for and not known. */
  fillFrom(look: (digest: Digest) => BlobEntry | undefined): void {
    this.#look = look;
  }

  /** Every blob is known now. */
  completed(): void {
    this.#look = undefined;
    this.#settled.clear();
  }

  get(digest: Digest): BlobEntry | undefined {
    const entry = this.#entries.get(digest);
    if (entry !== undefined || this.#look === undefined) return entry;
    return this.#settled.has(digest) ? undefined : this.#look(digest);
  }

  /** What is known of it already. */
  peek(digest: Digest): BlobEntry | undefined {
    return this.#entries.get(digest);
  }

  /** True when what the disk has under that digest is decided: it has an entry, or has left, or is being published. */
  knows(digest: Digest): boolean {
    return this.#entries.has(digest) || this.#settled.has(digest);
  }

  /** From now on its entry, or that it has none, is changed by calls alone, and not by what lies on the disk. */
  settle(digest: Digest): void {
    this.get(digest);
    if (!this.complete) this.#settled.add(digest);
  }

  entries(): Iterable<BlobEntry> {
    return this.#entries.values();
  }

  /** Cache blobs, the longest unused first. */
  cached(): Iterable<BlobEntry> {
    return this.#cache.values();
  }

  /** Published blobs that containerd has not taken, the oldest first. */
  published(): Iterable<BlobEntry> {
    return this.#published;
  }

  /** A blob of at most one piece has its own sha256 as its list; others become shared by `setListed`. */
  add(blob: Omit<BlobEntry, 'pins' | 'kept_until_ms' | 'listed' | 'gone'>): BlobEntry {
    const kept_until_ms = -Infinity;
    const entry: BlobEntry = { ...blob, pins: 0, kept_until_ms, listed: false, gone: false };
    this.#entries.set(entry.digest, entry);
    this.#enterState(entry);
    if (isOwnList(entry)) this.setListed(entry, true);
    return entry;
  }

  remove(entry: BlobEntry): void {
    if (this.#entries.get(entry.digest) !== entry) return;
    entry.gone = true;
    if (!this.complete) this.#settled.add(entry.digest);
    this.setListed(entry, false);
    this.#leaveState(entry);
    this.#entries.delete(entry.digest);
  }

  setState(entry: BlobEntry, state: BlobState): void {
    if (entry.state === state || this.#entries.get(entry.digest) !== entry) return;
    this.#leaveState(entry);
    entry.state = state;
    this.#enterState(entry);
  }

  /** Somebody uses the blob: a cache blob is evicted after the others. */
  touch(entry: BlobEntry): void {
    if (this.#cache.delete(entry.digest)) this.#cache.set(entry.digest, entry);
  }

  setListed(entry: BlobEntry, listed: boolean): void {
    if (entry.listed === listed) return;
    entry.listed = listed;
    if (this.#sharing) this.#tell({ kind: listed ? 'added' : 'removed', digest: entry.digest });
  }

  /** Shows all listed blobs to peers, or hides them all. */
  setSharing(sharing: boolean): void {
    if (this.#sharing === sharing) return;
    this.#sharing = sharing;
    for (const { listed, digest } of this.#entries.values()) {
      if (listed) this.#tell({ kind: sharing ? 'added' : 'removed', digest });
    }
  }

  *shared(): Iterable<Digest> {
    if (!this.#sharing) return;
    for (const entry of this.#entries.values()) if (entry.listed) yield entry.digest;
  }

  onShared(listener: (event: SharedEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  #enterState(entry: BlobEntry): void {
    if (entry.state === 'published') this.#published.add(entry);
    if (entry.state !== 'cache') return;
    this.#cache.set(entry.digest, entry);
    this.#cache_bytes += entry.size_bytes;
  }

  #leaveState(entry: BlobEntry): void {
    this.#published.delete(entry);
    if (this.#cache.delete(entry.digest)) this.#cache_bytes -= entry.size_bytes;
  }

  #tell(event: SharedEvent): void {
    for (const listener of this.#listeners) {
      try {
        listener(event);
      } catch (err) {
        // A listener's fault must not undo a commit.
        this.#logger.error({ err, digest: event.digest }, 'listener of shared blobs failed');
      }
    }
  }
}

/** True when the blob's digest is at the same time the digest of its only piece. */
export function isOwnList(blob: { digest: Digest; size_bytes: number }): boolean {
  return blob.size_bytes <= PIECE_BYTES && blob.digest.startsWith('sha256:');
}

export function infoOf(entry: BlobEntry): BlobInfo {
  const { digest, size_bytes, created_ns, updated_ns, labels } = entry;
  return { digest, size_bytes, created_ns, updated_ns, labels };
}
