import type { Digest } from '../../oci/digest.ts';
import type { Logger } from '../../ops/logger.ts';
import { MAX_BLOB_BYTES } from '../../piece/layout.ts';
import type { LostBlob } from '../blob-store.ts';
import type { DigestFiles } from '../disk/digest-files.ts';

/** Owned blobs that were damaged: known until somebody brings them back or containerd deletes them. At most as many as there were blobs. */
export class LostBlobs {
  readonly #files: DigestFiles;
  readonly #logger: Logger;
  readonly #sizes = new Map<Digest, number>();
  readonly #listeners = new Set<(blob: LostBlob) => void>();

  constructor(modules: { files: DigestFiles; logger: Logger }) {
    this.#files = modules.files;
    this.#logger = modules.logger;
    for (const digest of this.#files.digests()) {
      const size = Number(this.#files.read(digest)?.toString());
      if (Number.isSafeInteger(size) && size >= 0 && size <= MAX_BLOB_BYTES) {
        this.#sizes.set(digest, size);
      }
    }
  }

  get size(): number {
    return this.#sizes.size;
  }

  has(digest: Digest): boolean {
    return this.#sizes.has(digest);
  }

  *all(): Iterable<LostBlob> {
    for (const [digest, size_bytes] of this.#sizes) yield { digest, size_bytes };
  }

  add(digest: Digest, size_bytes: number): void {
    this.#sizes.set(digest, size_bytes);
    try {
      this.#files.put(digest, String(size_bytes));
    } catch (err) {
      // Known until the next start; then the background pass finds the damage again.
      this.#logger.warn({ err, digest }, 'lost blob not remembered on disk');
    }
    for (const listener of this.#listeners) listener({ digest, size_bytes });
  }

  /** It is back, or nobody wants it any more. */
  clear(digest: Digest): void {
    if (this.#sizes.delete(digest)) this.#files.remove(digest);
  }

  onLost(listener: (blob: LostBlob) => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }
}
