import type { Hash } from 'node:crypto';
import { DaemonError } from '../../base/errors.ts';
import { algorithmOf, createHasher, type Digest, runningDigest } from '../../oci/digest.ts';
import { pieceLength, pieceOffset } from '../../piece/layout.ts';
import { PIECE_DIGEST_BYTES } from '../../piece/piece-list.ts';
import type { VerifiedPiece } from '../../piece/verified-piece.ts';
import { type LocalCatalog, missing } from '../blobs/blob-catalog.ts';
import { infoOf } from '../blobs/blob-index.ts';
import type { BlobInfo, StagedBlob } from '../blob-store.ts';
import { fileError } from '../disk/file-errors.ts';
import { breathe, type Files, readInto, writeAt } from '../disk/files.ts';
import { HASH_SLICE_BYTES, PrefixHash } from '../disk/prefix-hash.ts';
import { Serial } from '../disk/serial.ts';
import type { StoreMetrics } from '../metrics.ts';
import { CARRIED_MAX, type CarriedPieces, carryOver, dropCarried } from './carried-pieces.ts';
import { PieceSet } from './piece-set.ts';
import { changedPieces } from './reread.ts';

type Modules = {
  readonly catalog: LocalCatalog;
  readonly files: Files;
  readonly metrics: StoreMetrics;
  /** A path in staging for another file. */
  readonly freshPath: () => string;
  /** The working copy has ended, in whatever way. */
  readonly onEnd: (staged: LocalStaged) => void;
};

/**
 * What a working copy hands to an ingest: the first `bytes` of the file `fd`, which lies at `path`, and the hash of them (undefined when the
 * blob's digest is not a sha256). The file may be longer.
 */
export type GivenPrefix = {
  readonly fd: number;
  readonly path: string;
  readonly bytes: number;
  readonly hash: PrefixHash | undefined;
};

/**
 * A working copy: one sparse file in staging. Hashed in order as pieces arrive, from their bytes while those are being written; what
 * came out of order is read again from the page cache.
 */
export class LocalStaged implements StagedBlob {
  readonly digest: Digest;
  readonly size_bytes: number;
  readonly #m: Modules;
  #path: string;
  #fd: number;
  /** False once the file belongs to an ingest. */
  #own = true;
  readonly #pieces: PieceSet;
  /** Whole `write` calls under way. */
  readonly #writing = new Map<number, Promise<void>>();
  /** Pieces on their way to the file: their bytes, and the end of that. */
  readonly #arriving = new Map<number, { bytes: Uint8Array; written: Promise<void> }>();
  readonly #hashing = new Serial();
  #whole: Hash;
  /** Pieces hashed so far; the last of them may still be being written. */
  #next = 0;
  /** Leading pieces that are both hashed and written. */
  #prefix = 0;
  #slice: Uint8Array | undefined;
  #ended = false;
  #closing: Promise<void> | undefined;

  /** Takes over `fd`, which is open at `path`. */
  constructor(
    modules: Modules,
    blob: { digest: Digest; size_bytes: number },
    file: { path: string; fd: number },
  ) {
    this.#m = modules;
    this.digest = blob.digest;
    this.size_bytes = blob.size_bytes;
    this.#path = file.path;
    this.#fd = file.fd;
    this.#pieces = new PieceSet(blob);
    this.#whole = createHasher(algorithmOf(blob.digest));
  }

  get prefix_bytes(): number {
    return Math.min(this.size_bytes, pieceOffset(this.#prefix));
  }

  get holds_pieces(): boolean {
    return !this.#ended && this.#pieces.size > 0;
  }

  has(index: number): boolean {
    return this.#pieces.has(index);
  }

  async write(piece: VerifiedPiece): Promise<void> {
    this.#live();
    const { index, bytes, sha256 } = piece;
    const fits = bytes.length > 0 && bytes.length === pieceLength(this.size_bytes, index);
    if (!fits || !Number.isSafeInteger(index) || sha256.length !== PIECE_DIGEST_BYTES) {
      throw new DaemonError('invalid_argument', `piece ${index} does not fit ${this.digest}`, {
        digest: this.digest,
        bytes: bytes.length,
      });
    }
    if (this.has(index)) return;
    const writing = this.#writing.get(index) ?? this.#put(piece);
    this.#writing.set(index, writing);
    try {
      await writing;
    } finally {
      this.#writing.delete(index);
    }
  }

  async publish(): Promise<BlobInfo> {
    this.#live();
    await this.#settle();
    if (!this.#pieces.whole) {
      throw new DaemonError('failed_precondition', `blob ${this.digest} is not complete yet`, {
        digest: this.digest,
      });
    }
    this.#live();
    const found = runningDigest(algorithmOf(this.digest), this.#whole);
    if (found !== this.digest) {
      throw new DaemonError('data_loss', `the pieces make ${found}, not ${this.digest}`, {
        digest: this.digest,
      });
    }
    this.#ended = true;
    try {
      return await this.#publish();
    } finally {
      await this.#close();
    }
  }

  async drop(indexes: Iterable<number>): Promise<void> {
    this.#live();
    await this.#settle();
    await this.#hashing.run(() => this.#forget(indexes));
  }

  async reread(): Promise<readonly number[]> {
    this.#live();
    await this.#settle();
    return this.#hashing.run(async () => {
      const { size_bytes } = this;
      const file = { fd: this.#fd, size_bytes, digests: this.#pieces.digests };
      const changed = await changedPieces(this.#m.files, file, this.#pieces.from(0));
      this.#rehash();
      await this.#forget(changed);
      return changed;
    });
  }

  /**
   * Lets `take` have the file's prefix while nothing is written. With `move` the file is the taker's, once `take` has resolved; pieces behind the
   * prefix are carried over into a file of their own and this working copy goes on with them, else it has ended.
   */
  async givePrefix(
    { move }: { move: boolean },
    take: (prefix: GivenPrefix) => Promise<void>,
  ): Promise<void> {
    this.#live();
    // No new writes from here: they would land in a file that is somebody else's.
    if (move) this.#ended = true;
    let moved = false as boolean; // set by the callback
    try {
      if (move) await this.#settle();
      await this.#hashing.run(async () => {
        await this.#hashedIsWritten();
        const { files, freshPath } = this.#m;
        const { digest, size_bytes } = this;
        const [fd, path, bytes] = [this.#fd, this.#path, this.prefix_bytes];
        const rest = move
          ? await carryOver(
              files,
              { digest, size_bytes, fd },
              { path: freshPath(), indexes: this.#pieces.from(this.#prefix).slice(0, CARRIED_MAX) },
            )
          : undefined;
        try {
          await take({ fd, path, bytes, hash: this.#prefixHash() });
        } catch (error) {
          if (rest !== undefined) await dropCarried(files, rest);
          throw error;
        }
        moved = move;
        if (rest !== undefined) this.#goOnWith(rest);
        else if (move) this.#own = false;
      });
    } finally {
      if (move && !moved) this.#ended = false;
      if (moved && !this.#own) await this.#close();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#ended = true;
    await this.#close();
  }

  async #put(piece: VerifiedPiece): Promise<void> {
    const { index, bytes } = piece;
    const written = this.#writePiece(piece);
    this.#arriving.set(index, { bytes, written });
    const hashed = this.#hashing.run(() => this.#hashOn());
    const [writing] = await Promise.allSettled([written, hashed]);
    this.#arriving.delete(index);
    if (writing.status === 'rejected') {
      await this.#unhash(index);
      throw fileError(writing.reason, 'write', this.#path);
    }
    // The hash may have stopped before this piece was in the file.
    await this.#hashing.run(() => this.#hashOn());
    this.#advance();
  }

  async #writePiece({ index, bytes, sha256 }: VerifiedPiece): Promise<void> {
    await writeAt(this.#m.files, this.#fd, bytes, pieceOffset(index));
    this.#pieces.add(index, sha256);
    this.#m.metrics.staged.inc({}, bytes.length);
    this.#advance();
  }

  #advance(): void {
    while (this.#prefix < this.#next && this.has(this.#prefix)) this.#prefix += 1;
  }

  /** Resolves when no hashed piece is on its way to the file any more. */
  async #hashedIsWritten(): Promise<void> {
    const before = [...this.#arriving].filter(([index]) => index < this.#next);
    await Promise.allSettled(before.map(([, { written }]) => written));
  }

  /** Hashes as far as pieces are there without a gap, in memory or in the file. */
  async #hashOn(): Promise<void> {
    for (;;) {
      const arriving = this.#arriving.get(this.#next);
      if (arriving !== undefined) await this.#hash(arriving.bytes);
      else if (this.has(this.#next)) await this.#hashFromFile(this.#next);
      else return;
      this.#next += 1;
      this.#advance();
    }
  }

  async #forget(indexes: Iterable<number>): Promise<void> {
    for (const index of indexes) {
      if (this.#pieces.delete(index) && index < this.#next) this.#rehash();
    }
    await this.#hashOn();
  }

  #rehash(): void {
    this.#whole = createHasher(algorithmOf(this.digest));
    this.#next = 0;
    this.#prefix = 0;
  }

  /** A piece did not reach the file: if it was hashed already, the hash is made anew from what is there. */
  async #unhash(index: number): Promise<void> {
    await this.#hashing.run(async () => {
      if (index < this.#next) this.#rehash();
      await this.#hashOn();
    });
  }

  async #hashFromFile(index: number): Promise<void> {
    const end = pieceOffset(index) + pieceLength(this.size_bytes, index);
    // Used again: a new one for each slice would keep the garbage collector busy.
    const slice = (this.#slice ??= Buffer.allocUnsafeSlow(HASH_SLICE_BYTES));
    for (let at = pieceOffset(index); at < end; ) {
      const room = slice.subarray(0, Math.min(HASH_SLICE_BYTES, end - at));
      const bytes = await readInto(this.#m.files, this.#fd, room, at);
      if (bytes.length === 0) {
        throw new DaemonError('data_loss', `the working copy of ${this.digest} was truncated`);
      }
      await this.#hash(bytes);
      at += bytes.length;
    }
  }

  async #hash(bytes: Uint8Array): Promise<void> {
    for (let start = 0; start < bytes.length; start += HASH_SLICE_BYTES) {
      this.#whole.update(bytes.subarray(start, start + HASH_SLICE_BYTES));
      await breathe();
    }
  }

  #prefixHash(): PrefixHash | undefined {
    if (algorithmOf(this.digest) !== 'sha256') return undefined;
    if (this.#prefix !== this.#next) return undefined; // a hashed piece is not in the file: its write failed just now
    return PrefixHash.resume({
      whole: this.#whole.copy(),
      offset_bytes: this.prefix_bytes,
      digests: this.#pieces.digests.slice(0, this.#prefix * PIECE_DIGEST_BYTES),
    });
  }

  async #publish(): Promise<BlobInfo> {
    const { catalog } = this.#m;
    const { digest, size_bytes } = this;
    const file = { digest, size_bytes, fd: this.#fd, path: this.#path };
    const published = await catalog.publish(file, {
      pieces: this.#pieces.digests,
      isWanted: () => true,
      heals: true,
      turn: 'in turn',
    });
    const entry = published ?? missing(digest);
    catalog.unpin(entry);
    return infoOf(entry);
  }

  #goOnWith({ fd, path, indexes }: CarriedPieces): void {
    this.#fd = fd;
    this.#path = path;
    this.#pieces.keep(indexes);
    this.#rehash();
    this.#ended = false;
  }

  /** Waits for the writes that are under way; their failures are their callers'. */
  async #settle(): Promise<void> {
    await Promise.allSettled(this.#writing.values());
    await this.#hashing.run(() => Promise.resolve());
  }

  #close(): Promise<void> {
    this.#closing ??= this.#settle().then(async () => {
      try {
        if (!this.#own) return;
        await this.#m.files.close(this.#fd);
        // Gone already when it was published.
        await this.#m.files.remove(this.#path);
      } finally {
        this.#m.onEnd(this);
      }
    });
    return this.#closing;
  }

  #live(): void {
    if (!this.#ended) return;
    throw new DaemonError('not_found', `the working copy of ${this.digest} has ended`, {
      digest: this.digest,
    });
  }
}
