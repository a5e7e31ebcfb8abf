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
import type { SyncTurn } from '../disk/sync-lane.ts';
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

/** An ingest on the last step of its way to be a blob. */
export class WholeIngest {
  readonly #m: Modules;
  readonly #record: IngestRecord;

  constructor(modules: Modules, record: IngestRecord) {
    this.#m = modules;
    this.#record = record;
  }

  /**
   * All of its bytes are there and not published yet: by the total, or by the digest where that is all that was said. Asked after every write, the digest
   * costs what the one in the write's answer costs, some µs.
   */
  isComplete(): boolean {
    const record = this.#record;
    const { total_bytes, offset_bytes, held, named, hash } = record;
    if (held !== undefined || offset_bytes === 0) return false;
    if (total_bytes > 0 || named === '') return offset_bytes === total_bytes;
    return hash.covers(record) && hash.current?.digestIn(algorithmOf(named)) === named;
  }

  /**
   * Digest of its bytes in the algorithm of `like`, from the running hash, which must have caught up. In an algorithm that nobody had named while they
   * came the bytes are read again. containerd's own store does the same at the same place; only `ctr content ingest --expected-digest sha512:…`
   * and clients with refs of their own come here, because containerd's metadata strips the digest from what it says at the opening.
   */
  async digest(like: Digest | ''): Promise<Digest> {
    const { offset_bytes, hash, data } = this.#record;
    const algorithm = like === '' ? 'sha256' : algorithmOf(like);
    if (offset_bytes === 0 && algorithm === 'sha256') return EMPTY_SHA256;
    const carried = hash.current?.digestIn(algorithm);
    if (carried !== undefined || like === '') return carried ?? EMPTY_SHA256;
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
        const how = { pieces: undefined, isWanted, heals: false, turn: 'now' } as const;
        const entry = await catalog.publish(file, how);
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
  async publish(fd: number, digest: Digest, turn: SyncTurn): Promise<BlobEntry> {
    const record = this.#record;
    const file = { digest, size_bytes: record.offset_bytes, fd, path: record.data };
    const pieces = record.hash.current?.pieceDigests();
    const isWanted = (): boolean => !record.gone;
    try {
      const how = { pieces, isWanted, heals: false, turn };
      const entry = await this.#m.catalog.publish(file, how);
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
