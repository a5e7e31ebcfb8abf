import type { Digest } from '../../src/oci/digest.ts';
import type { PieceSource, SourceFinder } from '../../src/piece/source.ts';

/** A finder whose answers a test lays down. Like a real one it stops naming sources that were caught lying. */
export class FakeFinder implements SourceFinder {
  readonly #sources = new Map<Digest, PieceSource[]>();
  finds = 0;

  add(digest: Digest, ...sources: readonly PieceSource[]): void {
    this.#sources.set(digest, [...(this.#sources.get(digest) ?? []), ...sources]);
  }

  /** A source in place of the one with its id, as when its host is connected anew. */
  replace(digest: Digest, source: PieceSource): void {
    this.#sources.set(
      digest,
      this.find(digest).map((s) => (s.id === source.id ? source : s)),
    );
  }

  remove(digest: Digest): void {
    this.#sources.delete(digest);
  }

  find(digest: Digest): readonly PieceSource[] {
    this.finds++;
    return this.#sources.get(digest) ?? [];
  }
}
