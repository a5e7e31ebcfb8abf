import { createHash } from 'node:crypto';
import { DaemonError, hasCode } from '../../base/errors.ts';
import type { Digest } from '../../oci/digest.ts';
import { pieceCount, pieceLength, pieceOffset } from '../../piece/layout.ts';
import { type PieceList, pieceDigest } from '../../piece/piece-list.ts';
import { missing } from '../blobs/blob-catalog.ts';
import type { BlobEntry, BlobIndex, SharedEvent } from '../blobs/blob-index.ts';
import type { BlobReaders } from '../blobs/blob-readers.ts';
import type { BlobRemoval } from '../blobs/blob-removal.ts';
import type { SharedBlobs } from '../blob-store.ts';
import { breathe, type Files, readAt } from '../disk/files.ts';
import { fileError } from '../disk/file-errors.ts';
import type { PieceLists } from '../blobs/piece-lists.ts';
import { HASH_SLICE_BYTES } from '../disk/prefix-hash.ts';

/** Blobs whose served pieces are remembered as checked. Beyond that the longest unused is checked anew when served. */
const CHECKED_MAX = 4096;

type Modules = {
  readonly index: BlobIndex;
  readonly lists: PieceLists;
  readonly readers: BlobReaders;
  readonly files: Pick<Files, 'read'>;
  readonly removal: BlobRemoval;
};

/** What peers see of the store, and the guard that damaged bytes never leave it. */
export class SharedPieces implements SharedBlobs {
  readonly #m: Modules;
  readonly #checked = new Map<BlobEntry, Uint8Array>();
  readonly #onUnlisted: (digest: Digest) => void;

  /** `onUnlisted` is told of a blob whose stored list turned out to be unusable. */
  constructor(modules: Modules, onUnlisted: (digest: Digest) => void) {
    this.#m = modules;
    this.#onUnlisted = onUnlisted;
  }

  shared(): Iterable<Digest> {
    return this.#m.index.shared();
  }

  onShared(listener: (event: SharedEvent) => void): () => void {
    return this.#m.index.onShared(listener);
  }

  async pieceList(digest: Digest): Promise<PieceList> {
    return await this.#list(this.#m.index.get(digest) ?? missing(digest));
  }

  async readPiece(
    digest: Digest,
    index: number,
    { doubted }: { readonly doubted: boolean } = { doubted: false },
  ): Promise<Uint8Array> {
    const entry = this.#m.index.get(digest) ?? missing(digest);
    const length = pieceLength(entry.size_bytes, index);
    if (!Number.isSafeInteger(index) || length === 0) {
      throw new DaemonError('out_of_range', `blob ${digest} has no piece ${index}`, { digest });
    }
    const list = await this.#list(entry);
    this.#m.index.touch(entry);
    const bytes = await this.#read(entry, pieceOffset(index), length);
    if (!doubted && this.#isChecked(entry, index)) return bytes;
    const sha256 = await sliced(bytes);
    if (Buffer.compare(sha256, pieceDigest(list, index)) !== 0) {
      this.#m.removal.condemn(entry, 'corrupt');
      throw damaged(digest, `piece ${index} is not what was committed`);
    }
    this.#noteChecked(entry, index);
    return bytes;
  }

  async #list(entry: BlobEntry): Promise<PieceList> {
    const list = entry.listed ? await this.#m.lists.load(entry) : undefined;
    if (list !== undefined) return list;
    if (entry.listed) {
      this.#m.index.setListed(entry, false);
      this.#onUnlisted(entry.digest);
    }
    throw new DaemonError(
      'not_found',
      `the piece list of blob ${entry.digest} is not computed yet; ask again later`,
      { digest: entry.digest },
    );
  }

  async #read(entry: BlobEntry, offset: number, length: number): Promise<Uint8Array> {
    const { digest } = entry;
    try {
      const bytes = await this.#m.readers.files.use(digest, (fd) =>
        readAt(this.#m.files, fd, length, offset),
      );
      if (bytes.length === length) return bytes;
      this.#m.removal.condemn(entry, 'corrupt');
      throw damaged(digest, 'its file is too short');
    } catch (error) {
      if (hasCode(error, 'not_found')) this.#m.removal.condemn(entry, 'missing');
      throw fileError(error, 'read', digest);
    }
  }

  #isChecked(entry: BlobEntry, index: number): boolean {
    const bits = this.#checked.get(entry);
    return bits !== undefined && (bits[index >> 3]! & (1 << (index & 7))) !== 0;
  }

  #noteChecked(entry: BlobEntry, index: number): void {
    const bits =
      this.#checked.get(entry) ?? new Uint8Array((pieceCount(entry.size_bytes) >> 3) + 1);
    bits[index >> 3]! |= 1 << (index & 7);
    this.#checked.delete(entry);
    this.#checked.set(entry, bits);
    for (const oldest of this.#checked.keys()) {
      if (this.#checked.size <= CHECKED_MAX) break;
      this.#checked.delete(oldest);
    }
  }
}

async function sliced(bytes: Uint8Array): Promise<Buffer> {
  const hash = createHash('sha256');
  for (let start = 0; start < bytes.length; start += HASH_SLICE_BYTES) {
    if (start > 0) await breathe();
    hash.update(bytes.subarray(start, start + HASH_SLICE_BYTES));
  }
  return hash.digest();
}

function damaged(digest: Digest, what: string): DaemonError {
  return new DaemonError('data_loss', `blob ${digest} is damaged: ${what}; it is quarantined`, {
    digest,
  });
}
