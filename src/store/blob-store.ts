/**
 * The store's promises, as its neighbours see them. Life of a blob:
 *
 * An **ingest** is opened under a ref (one writer at a time), grows by appended writes, survives restarts, and ends by
 * commit, which checks size and digest, or by abort. A **staged blob** is the pull room's private working copy: pieces
 * in any order, invisible to containerd, published when the digest of the whole agrees. A **blob** is immutable and in one of three
 * states: *published* (verified and durable at `blobs/<algorithm>/<hex>` in containerd's own layout, but containerd has not taken it
 * yet; not listed), *owned* by containerd (it was committed through an ingest or adopted through `adopt`; listed; leaves `blobs/`
 * on containerd's own `delete` and never otherwise), or *cache* (containerd has deleted it or never asked for it; in a folder of our own,
 * unknown to containerd, still served to peers, evicted oldest first beyond the budget, and published again only verified).
 *
 * Everything marked "memory" answers synchronously from memory: containerd's write transaction waits for those calls.
 */
import type { Digest } from '../oci/digest.ts';
import type { PieceList } from '../piece/piece-list.ts';
import type { VerifiedPiece } from '../piece/verified-piece.ts';

export type BlobInfo = {
  readonly digest: Digest;
  readonly size_bytes: number;
  readonly created_ns: bigint;
  readonly updated_ns: bigint;
  readonly labels: Readonly<Record<string, string>>;
};

/** A blob that containerd owns and whose bytes are gone. containerd never pulls it again by itself. */
export type LostBlob = { readonly digest: Digest; readonly size_bytes: number };

export type IngestStatus = {
  readonly ref: string;
  readonly offset_bytes: number;
  /** 0 when the writer did not say. */
  readonly total_bytes: number;
  /** Empty when the writer did not say. */
  readonly expected: Digest | '';
  readonly started_ns: bigint;
  readonly updated_ns: bigint;
};

/** Catalog of committed blobs, as containerd's content API needs it. */
export interface BlobCatalog {
  /** Memory. The owned or published blob; changes nothing. */
  info(digest: Digest): BlobInfo | undefined;
  /**
   * Memory (one `stat` at most). What containerd's `Info` gets: a published blob becomes owned, because containerd adopts silently after a
   * successful Info. A blob whose file is gone or has another size is quarantined and reported as absent. One that another content store
   * has put under `blobs/` meanwhile is taken in. Only for calls of containerd.
   */
  adopt(digest: Digest): BlobInfo | undefined;
  /**
   * Memory, once all blobs found at start are known. Owned blobs only, those that are lost too: containerd's GC deletes whatever it sees here and does
   * not know. Only for calls of containerd.
   */
  list(): Promise<Iterable<BlobInfo>>;
  /** Sets the labels wholly (`replace`) or key by key; an empty value removes a key. `not_found`. */
  update(
    digest: Digest,
    labels: Readonly<Record<string, string>>,
    mode: 'replace' | 'merge',
  ): Promise<BlobInfo>;
  /** containerd holds no reference any more: the blob becomes cache (or goes, when the budget is 0). Absent = success. One rename. Only for calls of containerd. */
  delete(digest: Digest): Promise<void>;
  /** A reader over a cached file handle of an owned or published blob. `not_found`. Cheap enough to be called per Read. */
  open(digest: Digest): Promise<BlobReader>;
  /** Memory. The reader of `open`, when its handle is in the cache already. */
  opened(digest: Digest): BlobReader | undefined;
}

/** Random access to one blob. Handles are shared and closed by the store; readers need no closing. */
export interface BlobReader {
  readonly size_bytes: number;
  /** Memory. The bytes if they lie in the read-ahead window (never copied, never overwritten later), else undefined. */
  peek(offset: number, length: number): Uint8Array | undefined;
  /** Up to `length` bytes (fewer only at the end). Sequential callers fill the read-ahead window. `data_loss` when the file is shorter than recorded. */
  read(offset: number, length: number): Promise<Uint8Array>;
}

/** Resumable writes, as containerd's content API needs them. */
export interface IngestArea {
  /**
   * Memory. Opens or resumes the ingest of `ref` and takes its lock; what has to be done on the disk `ready()` does. `named` is the digest in the
   * ref, if it names one. `unavailable` when another writer holds the ref. A resumed ingest whose total differs starts again at 0.
   */
  ingest(
    ref: string,
    options: { total_bytes: number; expected?: Digest; named?: Digest },
  ): Promise<Ingest>;
  /** Memory. `undefined` for an unknown ref. */
  status(ref: string): IngestStatus | undefined;
  /** Memory. */
  statuses(): Iterable<IngestStatus>;
  /**
   * Removes the ingest; unknown ref = success. An open writer of it fails with `not_found` at its next call. A published blob that only this ingest held goes
   * to the cache right after. Only for calls of containerd.
   */
  abort(ref: string): Promise<void>;
}

/** The one writer of a ref. Dispose it to release the lock; the bytes stay for a resume. */
export interface Ingest extends AsyncDisposable {
  readonly ref: string;
  /** Memory. */
  status(): IngestStatus;
  /**
   * Resolves when the file is there and the running hash has caught up with its bytes (a moment, except after a restart). Bytes found complete are
   * published, or dropped when they are not what the ref names. The offset may be another one afterwards. `resource_exhausted`.
   */
  ready(signal: AbortSignal): Promise<void>;
  /** Memory. Digest of the bytes so far; '' until `ready`. */
  digest(): Digest | '';
  /**
   * Appends at the current offset. Lent bytes. The write that reaches the total, or the digest in the ref where no total was said, returns when the
   * bytes are verified and published, durably (unless they are not what the ref names: the commit will say so). Without a total it may wait for a disk
   * that has fallen behind. `resource_exhausted` on a full disk, with nothing kept of the failed write; after a failed force to the disk the ingest starts anew.
   */
  write(bytes: Uint8Array): Promise<void>;
  /** Back to offset 0. */
  truncate(): Promise<void>;
  /** Memory for the caller: from now on the content is the committed or published blob `digest`; offset == its size. `not_found`. */
  adopt(digest: Digest): Promise<void>;
  /**
   * Takes the contiguous prefix of a staged blob, with its hash state, in place of own bytes. `move` gives the file away instead of copying it; pieces behind
   * the prefix stay with the staged blob. After a failure the ingest has its own bytes, or starts anew at 0.
   */
  takePrefix(staged: StagedBlob, options: { move: boolean }): Promise<void>;
  /**
   * Size and digest check; the blob is owned, the ingest is gone and its lock free. Memory and one rename for an ingest that reached its total or
   * the digest in its ref; else what is not durable yet is made so first, a bounded number of bytes. `failed_precondition` when size or digest
   * disagree (on a digest mismatch the bytes of an ingest with a known total are dropped, so that a retry starts clean), `already_exists` (the ingest is gone then too). `size_bytes` 0 and `expected` '' are not checked.
   */
  commit(want: {
    size_bytes: number;
    expected: Digest | '';
    labels: Readonly<Record<string, string>>;
  }): Promise<BlobInfo>;
}

/** Private working copies for the pull room. */
export interface StagingArea {
  /** Memory. The owned or published blob. */
  info(digest: Digest): BlobInfo | undefined;
  /** Memory. The cache blob: `restore` may make it a published one. */
  cached(digest: Digest): BlobInfo | undefined;
  /**
   * Verifies a cache blob from its first to its last byte and publishes it, durably. True when it is published or owned then; false when it is not
   * here or not what it was. Takes as long as reading it. `resource_exhausted`, `failed_precondition` when containerd does not use this store.
   */
  restore(digest: Digest): Promise<boolean>;
  /** A fresh working copy. One per digest: `already_exists` otherwise. `resource_exhausted` when the disk is below its floor. Bounded number. */
  stage(digest: Digest, size_bytes: number): Promise<StagedBlob>;
}

/** A blob under construction. Disposing it removes its file, unless it was published or moved. */
export interface StagedBlob extends AsyncDisposable {
  readonly digest: Digest;
  readonly size_bytes: number;
  /** Memory. Bytes of the contiguous prefix that is written and hashed. */
  readonly prefix_bytes: number;
  /** Memory. Pieces are here, and it has not ended: worth keeping for somebody who asks again. */
  readonly holds_pieces: boolean;
  /** Memory. True when piece `index` is written. */
  has(index: number): boolean;
  /** Writes a piece at its place and hashes on as far as the prefix reaches. Lent bytes. A piece that is there already is ignored. */
  write(piece: VerifiedPiece): Promise<void>;
  /**
   * All pieces there: compares the whole digest and makes it a published blob, durably. `data_loss` when the digest disagrees: then it stays under
   * construction as it is. After any other failure it has ended.
   */
  publish(): Promise<BlobInfo>;
  /** Forgets pieces, so that they can be written anew; the prefix ends before the first of them. Only while nothing is being written. */
  drop(indexes: Iterable<number>): Promise<void>;
  /**
   * Reads everything here again, and drops and returns the pieces that are not what was written any more. What was hashed is hashed anew. Only while
   * nothing is being written.
   */
  reread(): Promise<readonly number[]>;
}

/** What the swarm may see and serve: committed, verified blobs only. */
export interface SharedBlobs {
  /** Memory. Digests of all blobs whose piece list is known. */
  shared(): Iterable<Digest>;
  /** Calls `listener` for every blob that becomes or ceases to be shareable. Returns the unsubscribe function. */
  onShared(
    listener: (event: { readonly kind: 'added' | 'removed'; readonly digest: Digest }) => void,
  ): () => void;
  /** `not_found`. */
  pieceList(digest: Digest): Promise<PieceList>;
  /**
   * One piece, checked against our own list the first time it is served and whenever it is `doubted`. `not_found`; `data_loss` = it was corrupt and
   * is quarantined now. Caller owns the bytes.
   */
  readPiece(
    digest: Digest,
    index: number,
    options?: { readonly doubted: boolean },
  ): Promise<Uint8Array>;
}

export interface BlobStore extends BlobCatalog, IngestArea, StagingArea, SharedBlobs {}
