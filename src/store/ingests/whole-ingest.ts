import { DaemonError } from '../../base/errors.ts';
import {
  algorithmOf,
  createHasher,
  type Digest,
  EMPTY_SHA256,
  runningDigest,
} from '../../oci/digest.ts';
import type { LocalCatalog } from '../blobs/blob-catalog.ts';
import type { BlobEntry } from '../blobs/blob-index.ts';
import { breathe, type Files, isSameFile, readAt } from '../disk/files.ts';
import { HASH_SLICE_BYTES } from '../disk/prefix-hash.ts';
import type { StoreLayout } from '../disk/layout.ts';
import type { IngestRecord } from './ingest-ledger.ts';
import { copyPrefix } from './prefix-copy.ts';
import { ingestGone } from './running-hash.ts';

/** No descriptor was free: the bytes themselves are fine, and the next try may publish them. */
const NO_DESCRIPTOR = new Set(['EMFILE', 'ENFILE']);

type Modules = {
  readonly files: Files;
  readonly layout: StoreLayout;
  readonly catalog: LocalCatalog;
};

/** An ingest with all of its bytes, on its way to be a blob. */
export class WholeIngest {
  readonly #m: Modules;
  readonly #record: IngestRecord;

  constructor(modules: Modules, record: IngestRecord) {
    this.#m = modules;
    this.#record = record;
  }

  /**
   * Digest of its bytes in the algorithm of `like`. sha256 comes from the running hash, which must have caught up; for others the bytes are
   * read again, because no digest was known while they came.
   */
  async digest(like: Digest | ''): Promise<Digest> {
    const { offset_bytes, hash, data } = this.#record;
    if (like === '' || algorithmOf(like) === 'sha256') {
      return offset_bytes === 0 ? EMPTY_SHA256 : (hash.current?.digest() ?? EMPTY_SHA256);
    }
    const { files } = this.#m;
    const fd = await files.open(data, 'r');
    try {
      return await this.#hashed(fd, offset_bytes, like);
    } finally {
      await files.close(fd);
    }
  }

  /** A copy of a published blob under a digest of another algorithm, pinned for the caller; or the digest that its bytes have, when that is not `want`. */
  async publishCopy(blob: BlobEntry, want: Digest): Promise<BlobEntry | Digest> {
    const { files, layout, catalog } = this.#m;
    const path = layout.blob(blob.digest);
    const source = await files.open(path, 'r');
    try {
      const found = await this.#hashed(source, blob.size_bytes, want);
      if (found !== want) return found;
      const copy = await copyPrefix(this.#m, { fd: source, path, bytes: blob.size_bytes });
      try {
        // The copy itself is what gets published, so it is what is hashed.
        if ((await this.#hashed(copy.fd, blob.size_bytes, want)) !== want)
          throw ingestGone(this.#record.ref);
        const file = { digest: want, size_bytes: blob.size_bytes, ...copy };
        const isWanted = (): boolean => !this.#record.gone;
        const entry = await catalog.publish(file, { pieces: undefined, isWanted, heals: false });
        if (entry === undefined) throw ingestGone(this.#record.ref);
        return entry;
      } finally {
        await files.close(copy.fd);
        await files.remove(copy.path);
      }
    } finally {
      await files.close(source);
    }
  }

  /** Publishes the file `fd`, whose bytes make `digest`. The result is pinned for the caller. `not_found` when the ingest went away meanwhile. */
  async publish(fd: number, digest: Digest): Promise<BlobEntry> {
    const record = this.#record;
    const file = { digest, size_bytes: record.offset_bytes, fd, path: record.data };
    const pieces = record.hash.current?.pieceDigests();
    const isWanted = (): boolean => !record.gone;
    try {
      const entry = await this.#m.catalog.publish(file, { pieces, isWanted, heals: false });
      if (entry !== undefined && isWanted()) return entry;
      if (entry !== undefined) this.#m.catalog.unpin(entry);
    } catch (error) {
      if (!record.gone) throw error;
    }
    throw ingestGone(record.ref);
  }

  async #hashed(fd: number, size_bytes: number, like: Digest): Promise<Digest> {
    const hasher = createHasher(algorithmOf(like));
    for (let at = 0; at < size_bytes; ) {
      const length = Math.min(HASH_SLICE_BYTES, size_bytes - at);
      const bytes = await readAt(this.#m.files, fd, length, at);
      if (bytes.length === 0) break;
      hasher.update(bytes);
      at += bytes.length;
      await breathe();
    }
    return runningDigest(algorithmOf(like), hasher);
  }

  /** Whether the open file lies at `path`. False when that cannot be told. */
  isAt(fd: number, path: string): boolean {
    const { files } = this.#m;
    try {
      return isSameFile(files.identityNow(fd), files.lookNow(path));
    } catch {
      return false;
    }
  }

  /** Whether the bytes can still be trusted after a failed publication: never after a failed force to the disk. */
  keepsBytesAfter(error: unknown): boolean {
    if (!(error instanceof DaemonError)) return false;
    return NO_DESCRIPTOR.has(String(error.facts['errno']));
  }
}
