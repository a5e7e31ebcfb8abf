import { type Digest } from '../../oci/digest.ts';
import { MAX_BLOB_BYTES } from '../../piece/layout.ts';
import type { DigestFiles } from '../disk/digest-files.ts';

/** A blob that containerd owns and whose bytes are gone. containerd never pulls it again by itself. */
export type LostBlob = { readonly digest: Digest; readonly size_bytes: number };

/** Owned blobs that were damaged: known until somebody brings them back or containerd deletes them. At most as many as there were blobs. */
export class LostBlobs {
  readonly #files: DigestFiles;
  readonly #sizes = new Map<Digest, number>();
  readonly #listeners = new Set<(blob: LostBlob) => void>();

  constructor(modules: { files: DigestFiles }) {
    this.#files = modules.files;
    for (const digest of this.#files.digests()) {
      const size = Number(this.#files.read(digest)?.toString());
      if (Number.isSafeInteger(size) && size >= 0 && size <= MAX_BLOB_BYTES) {
        this.#sizes.set(digest, size);
      }
    }
  }

  has(digest: Digest): boolean {
    return this.#sizes.has(digest);
  }

  *all(): Iterable<LostBlob> {
    for (const [digest, size_bytes] of this.#sizes) yield { digest, size_bytes };
  }

  add(digest: Digest, size_bytes: number): void {
    this.#sizes.set(digest, size_bytes);
    this.#files.put(digest, String(size_bytes));
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
