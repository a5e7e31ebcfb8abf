import { createHash } from 'node:crypto';
import { type Clock, systemClock } from '../../src/base/clock.ts';
import { DaemonError } from '../../src/base/errors.ts';
import { algorithmOf, type Digest, digestOf } from '../../src/oci/digest.ts';
import { pieceCount, pieceLength, pieceOffset } from '../../src/piece/layout.ts';
import { PIECE_DIGEST_BYTES, type PieceList, pieceDigest } from '../../src/piece/piece-list.ts';
import type { BlobInfo, BlobReader, BlobStore, IngestStatus } from '../../src/store/blob-store.ts';
import { type Labels, updatedLabels } from '../../src/store/blobs/labels.ts';
import { MemoryIngest, type MemoryRecord } from './memory-ingest.ts';
import { MemoryStaged } from './memory-staged.ts';

type MemoryState = 'owned' | 'published' | 'cache';

/** A blob of the fake. `bytes` may be overwritten by a test to stand for corruption on disk. */
export type MemoryBlob = {
  info: BlobInfo;
  bytes: Uint8Array;
  state: MemoryState;
  readonly list: PieceList;
};

type SharedEvent = { readonly kind: 'added' | 'removed'; readonly digest: Digest };

/** The store's promises kept in memory. Beyond the interface: `put`, `blobs`, `staged_max`, `full` for tests to arrange and look. */
export class MemoryStore implements BlobStore, AsyncDisposable {
  readonly blobs = new Map<Digest, MemoryBlob>();
  readonly #records = new Map<string, MemoryRecord>();
  readonly #staged = new Map<Digest, MemoryStaged>();
  readonly #listeners = new Set<(event: SharedEvent) => void>();
  readonly #clock: Clock;
  readonly #cache_max_bytes: number;
  staged_max = 64;
  /** True = every write and stage fails with `resource_exhausted`, as on a full disk. */
  full = false;

  constructor(
    modules: { clock: Clock } = { clock: systemClock },
    config = { cache_max_bytes: 2 ** 40 },
  ) {
    this.#clock = modules.clock;
    this.#cache_max_bytes = config.cache_max_bytes;
  }

  /** Puts a committed blob there, without an ingest. Returns its digest. */
  put(bytes: Uint8Array, state: MemoryState = 'owned'): Digest {
    const digest = digestOf(bytes);
    this.addBlob(digest, Uint8Array.from(bytes), state, {});
    return digest;
  }

  info(digest: Digest): BlobInfo | undefined {
    const blob = this.blobs.get(digest);
    return blob?.state === 'cache' ? undefined : blob?.info;
  }

  cached(digest: Digest): BlobInfo | undefined {
    const blob = this.blobs.get(digest);
    return blob?.state === 'cache' ? blob.info : undefined;
  }

  restore(digest: Digest): Promise<boolean> {
    return attempt(() => {
      const blob = this.blobs.get(digest);
      if (blob?.state !== 'cache') return blob !== undefined;
      if (digestLike(digest, blob.bytes) === digest) {
        blob.state = 'published';
        return true;
      }
      this.blobs.delete(digest);
      this.#tell({ kind: 'removed', digest });
      return false;
    });
  }

  adopt(digest: Digest): BlobInfo | undefined {
    const info = this.info(digest);
    if (info !== undefined) this.blobs.get(digest)!.state = 'owned';
    return info;
  }

  list(): Promise<Iterable<BlobInfo>> {
    return attempt(() =>
      [...this.blobs.values()].filter((b) => b.state === 'owned').map((b) => b.info),
    );
  }

  update(digest: Digest, labels: Labels, mode: 'replace' | 'merge'): Promise<BlobInfo> {
    return attempt(() => {
      const blob = this.#blob(digest);
      const next = updatedLabels(blob.info.labels, labels, mode);
      blob.info = { ...blob.info, labels: next, updated_ns: this.wall_ns() };
      return blob.info;
    });
  }

  delete(digest: Digest): Promise<void> {
    return attempt(() => {
      const blob = this.blobs.get(digest);
      if (blob === undefined) return;
      if (this.#cache_max_bytes > 0) {
        blob.state = 'cache';
        blob.info = { ...blob.info, labels: {} };
        return;
      }
      this.blobs.delete(digest);
      this.#tell({ kind: 'removed', digest });
    });
  }

  open(digest: Digest): Promise<BlobReader> {
    return attempt(() => this.opened(digest) ?? missing(digest));
  }

  opened(digest: Digest): BlobReader | undefined {
    const blob = this.blobs.get(digest);
    if (blob === undefined || blob.state === 'cache') return undefined;
    return {
      size_bytes: blob.info.size_bytes,
      peek: (offset, length) => blob.bytes.subarray(offset, offset + length),
      read: (offset, length) => Promise.resolve(blob.bytes.slice(offset, offset + length)),
    };
  }

  ingest(ref: string, options: { total_bytes: number; expected?: Digest }): Promise<MemoryIngest> {
    return attempt(() => {
      const found = this.#records.get(ref);
      if (found?.writer !== undefined) {
        throw new DaemonError('unavailable', `ref ${ref} is locked by another writer; try again`, {
          ref,
        });
      }
      const record = found ?? this.#newRecord(ref);
      this.#records.set(ref, record);
      if (options.total_bytes > 0) {
        const differs = record.total_bytes > 0 && record.total_bytes !== options.total_bytes;
        if (differs || record.bytes.length > options.total_bytes) record.bytes = new Uint8Array(0);
        record.total_bytes = options.total_bytes;
      }
      record.expected = options.expected ?? '';
      return new MemoryIngest(this, record);
    });
  }

  status(ref: string): IngestStatus | undefined {
    const record = this.#records.get(ref);
    return record === undefined ? undefined : statusOf(record);
  }

  statuses(): Iterable<IngestStatus> {
    return [...this.#records.values()].map(statusOf);
  }

  abort(ref: string): Promise<void> {
    return attempt(() => this.dropRecord(ref));
  }

  stage(digest: Digest, size_bytes: number): Promise<MemoryStaged> {
    return attempt(() => {
      if (this.#staged.has(digest) || this.blobs.has(digest)) {
        throw new DaemonError('already_exists', `blob ${digest} is staged or committed already`, {
          digest,
        });
      }
      if (this.full || this.#staged.size >= this.staged_max) {
        throw new DaemonError('resource_exhausted', `no room to stage blob ${digest}`, { digest });
      }
      const staged = new MemoryStaged(this, digest, size_bytes);
      this.#staged.set(digest, staged);
      return staged;
    });
  }

  /** For staged blobs: their life is over. */
  unstage(digest: Digest): void {
    this.#staged.delete(digest);
  }

  shared(): Iterable<Digest> {
    return [...this.blobs.keys()];
  }

  onShared(listener: (event: SharedEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  pieceList(digest: Digest): Promise<PieceList> {
    return attempt(() => this.#blob(digest).list);
  }

  readPiece(digest: Digest, index: number): Promise<Uint8Array> {
    return attempt(() => {
      const { bytes, list } = this.#blob(digest);
      const length = pieceLength(list.size_bytes, index);
      if (length === 0) {
        throw new DaemonError('out_of_range', `blob ${digest} has no piece ${index}`, { digest });
      }
      const piece = bytes.slice(pieceOffset(index), pieceOffset(index) + length);
      if (Buffer.compare(sha256(piece), pieceDigest(list, index)) !== 0) {
        this.blobs.delete(digest);
        this.#tell({ kind: 'removed', digest });
        throw new DaemonError('data_loss', `piece ${index} of blob ${digest} is corrupt`, {
          digest,
        });
      }
      return piece;
    });
  }

  /** For ingests and staged blobs: a blob is complete and verified. */
  addBlob(digest: Digest, bytes: Uint8Array, state: MemoryState, labels: Labels): BlobInfo {
    const found = this.blobs.get(digest);
    if (found !== undefined) {
      if (state === 'owned' || found.state === 'cache') found.state = state;
      if (Object.keys(labels).length > 0) found.info = { ...found.info, labels };
      return found.info;
    }
    const now = this.wall_ns();
    const size_bytes = bytes.length;
    const info = { digest, size_bytes, created_ns: now, updated_ns: now, labels };
    this.blobs.set(digest, { info, bytes, state, list: listOf(digest, bytes) });
    this.#tell({ kind: 'added', digest });
    return info;
  }

  /** For ingests. */
  dropRecord(ref: string): void {
    const record = this.#records.get(ref);
    this.#records.delete(ref);
    if (record !== undefined) {
      record.gone = true;
      record.writer = undefined;
    }
  }

  wall_ns(): bigint {
    return this.#clock.wall_ns();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return Promise.resolve();
  }

  #newRecord(ref: string): MemoryRecord {
    const now = this.wall_ns();
    return {
      ref,
      bytes: new Uint8Array(0),
      total_bytes: 0,
      expected: '',
      started_ns: now,
      updated_ns: now,
      adopted: undefined,
      writer: undefined,
      gone: false,
    };
  }

  #blob(digest: Digest): MemoryBlob {
    return this.blobs.get(digest) ?? missing(digest);
  }

  #tell(event: SharedEvent): void {
    for (const listener of this.#listeners) listener(event);
  }
}

export function statusOf(record: MemoryRecord): IngestStatus {
  const { ref, total_bytes, expected, started_ns, updated_ns, bytes, adopted } = record;
  const offset_bytes = adopted?.size_bytes ?? bytes.length;
  return { ref, offset_bytes, total_bytes, expected, started_ns, updated_ns };
}

/** Digest of `bytes` in the algorithm of `like`. */
export function digestLike(like: Digest, bytes: Uint8Array): Digest {
  const algorithm = algorithmOf(like);
  return `${algorithm}:${createHash(algorithm).update(bytes).digest('hex')}` as Digest;
}

function listOf(digest: Digest, bytes: Uint8Array): PieceList {
  const digests = new Uint8Array(pieceCount(bytes.length) * PIECE_DIGEST_BYTES);
  for (let i = 0; i < pieceCount(bytes.length); i++) {
    const start = pieceOffset(i);
    digests.set(sha256(bytes.subarray(start, start + pieceLength(bytes.length, i))), i * 32);
  }
  return { digest, size_bytes: bytes.length, digests };
}

function sha256(bytes: Uint8Array): Buffer {
  return createHash('sha256').update(bytes).digest();
}

function missing(digest: Digest): never {
  throw new DaemonError('not_found', `blob ${digest} is not in the store`, { digest });
}

/** Runs `work` at once; what it throws becomes a rejection. */
export function attempt<T>(work: () => T): Promise<T> {
  return new Promise((resolve) => resolve(work()));
}
