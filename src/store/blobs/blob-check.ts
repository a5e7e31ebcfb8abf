import { DaemonError, hasCode } from '../../base/errors.ts';
import { algorithmOf, createHasher, type Digest, runningDigest } from '../../oci/digest.ts';
import type { LocalCatalog } from './blob-catalog.ts';
import type { BlobReaders } from './blob-readers.ts';
import type { BlobRemoval } from './blob-removal.ts';
import { breathe, type Files, readAt } from '../disk/files.ts';
import type { LostBlobs } from './lost-blobs.ts';
import { HASH_SLICE_BYTES } from '../disk/prefix-hash.ts';

type Modules = {
  readonly catalog: Pick<LocalCatalog, 'intact' | 'kept'>;
  readonly readers: Pick<BlobReaders, 'files'>;
  readonly removal: Pick<BlobRemoval, 'condemn'>;
  readonly lost: Pick<LostBlobs, 'all'>;
  readonly files: Pick<Files, 'read'>;
};

/** What the disk has of a blob. `cache_wrong`: it was a copy for the peers, and containerd misses nothing. */
export type CheckedBlob = {
  readonly state: 'right' | 'lost' | 'cache_wrong' | 'absent';
  readonly size_bytes: number;
};

/** Reads blobs whole, on request, and takes those out of service that are not what their digest says. */
export class BlobCheck {
  readonly #m: Modules;
  #busy = false;

  constructor(modules: Modules) {
    this.#m = modules;
  }

  /** One blob at a time: `unavailable` while another is being read. Rejects with the signal's reason when it fires. */
  async check(digest: Digest, signal: AbortSignal): Promise<CheckedBlob> {
    if (this.#busy) {
      throw new DaemonError('unavailable', 'another blob is being read right now; try again');
    }
    this.#busy = true;
    try {
      return await this.#check(digest, signal);
    } finally {
      this.#busy = false;
    }
  }

  async #check(digest: Digest, signal: AbortSignal): Promise<CheckedBlob> {
    const { catalog, readers, removal, files } = this.#m;
    // Its file may be gone or of another length, which needs no reading.
    const entry = catalog.intact(digest) ?? catalog.kept(digest);
    if (entry === undefined) return this.#missing(digest);
    const { size_bytes, state } = entry;
    const algorithm = algorithmOf(digest);
    const hash = createHasher(algorithm);
    try {
      for (let offset = 0; offset < size_bytes; ) {
        const length = Math.min(HASH_SLICE_BYTES, size_bytes - offset);
        const bytes = await readers.files.use(digest, (fd) => readAt(files, fd, length, offset));
        if (bytes.length === 0) break;
        hash.update(bytes);
        offset += bytes.length;
        await breathe();
        signal.throwIfAborted();
        // Deleted meanwhile: whatever was read no longer matters.
        if (entry.gone) return this.#missing(digest);
      }
    } catch (error) {
      if (hasCode(error, 'not_found')) return this.#missing(digest);
      throw error;
    }
    if (runningDigest(algorithm, hash) === digest) return { state: 'right', size_bytes };
    removal.condemn(entry, 'corrupt');
    return { state: state === 'owned' ? 'lost' : 'cache_wrong', size_bytes };
  }

  #missing(digest: Digest): CheckedBlob {
    for (const lost of this.#m.lost.all()) {
      if (lost.digest === digest) return { state: 'lost', size_bytes: lost.size_bytes };
    }
    return { state: 'absent', size_bytes: 0 };
  }
}
