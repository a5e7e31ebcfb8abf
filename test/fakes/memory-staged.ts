import { createHash } from 'node:crypto';
import { DaemonError } from '../../src/base/errors.ts';
import type { Digest } from '../../src/oci/digest.ts';
import { pieceCount, pieceLength, pieceOffset } from '../../src/piece/layout.ts';
import type { VerifiedPiece } from '../../src/piece/verified-piece.ts';
import type { BlobInfo, StagedBlob } from '../../src/store/blob-store.ts';
import { attempt, digestLike, type MemoryStore } from './memory-store.ts';

/** The fake store's working copy. */
export class MemoryStaged implements StagedBlob {
  readonly digest: Digest;
  readonly size_bytes: number;
  readonly #store: MemoryStore;
  readonly #bytes: Uint8Array;
  /** Indexes with the digests the pieces had when they were written. */
  readonly #written = new Map<number, Uint8Array>();
  #prefix_pieces = 0;
  #closed = false;

  constructor(store: MemoryStore, digest: Digest, size_bytes: number) {
    this.#store = store;
    this.digest = digest;
    this.size_bytes = size_bytes;
    this.#bytes = new Uint8Array(size_bytes);
  }

  get prefix_bytes(): number {
    return Math.min(this.size_bytes, pieceOffset(this.#prefix_pieces));
  }

  get holds_pieces(): boolean {
    return !this.#closed && this.#written.size > 0;
  }

  has(index: number): boolean {
    return this.#written.has(index);
  }

  /** The prefix is given away: pieces behind it stay, without any the working copy has ended. */
  giveAway(): void {
    for (let i = 0; i < this.#prefix_pieces; i++) this.#written.delete(i);
    this.#prefix_pieces = 0;
    if (this.#written.size === 0) this.close();
  }

  /** A copy of the contiguous prefix. */
  prefix(): Uint8Array {
    return this.#bytes.slice(0, this.prefix_bytes);
  }

  write(piece: VerifiedPiece): Promise<void> {
    return attempt(() => {
      this.#open();
      const { index, bytes } = piece;
      if (bytes.length === 0 || bytes.length !== pieceLength(this.size_bytes, index)) {
        throw new DaemonError('invalid_argument', `piece ${index} has a wrong length`);
      }
      if (this.#store.full) throw new DaemonError('resource_exhausted', 'no space left');
      if (this.#written.has(index)) return;
      this.#bytes.set(bytes, pieceOffset(index));
      this.#written.set(index, piece.sha256);
      while (this.#written.has(this.#prefix_pieces)) this.#prefix_pieces++;
    });
  }

  publish(): Promise<BlobInfo> {
    return attempt(() => {
      this.#open();
      if (this.#written.size !== pieceCount(this.size_bytes)) {
        throw new DaemonError('failed_precondition', `blob ${this.digest} is not complete yet`);
      }
      if (digestLike(this.digest, this.#bytes) !== this.digest) {
        throw new DaemonError('data_loss', `staged bytes are not blob ${this.digest}`);
      }
      this.close();
      return this.#store.addBlob(this.digest, this.#bytes, 'published', {});
    });
  }

  drop(indexes: Iterable<number>): Promise<void> {
    return attempt(() => {
      this.#open();
      for (const index of indexes) {
        this.#written.delete(index);
        this.#prefix_pieces = Math.min(this.#prefix_pieces, index);
      }
    });
  }

  async reread(): Promise<readonly number[]> {
    this.#open();
    const changed = [...this.#written]
      .filter(([index, sha256]) => {
        const bytes = this.#bytes.subarray(pieceOffset(index), pieceOffset(index + 1));
        return Buffer.compare(createHash('sha256').update(bytes).digest(), sha256) !== 0;
      })
      .map(([index]) => index);
    await this.drop(changed);
    return changed;
  }

  /** For tests: a bit of the piece flips. */
  damage(index: number): void {
    this.#bytes[pieceOffset(index)]! ^= 1;
  }

  /** Frees the digest; idempotent. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#store.unstage(this.digest);
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.close();
    return Promise.resolve();
  }

  #open(): void {
    if (this.#closed) {
      throw new DaemonError('not_found', `the staged copy of ${this.digest} is gone`, {
        digest: this.digest,
      });
    }
  }
}
