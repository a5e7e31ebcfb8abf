import { DaemonError } from '../base/errors.ts';
import type { Digest } from '../oci/digest.ts';
import type { BlobInfo, StagedBlob } from '../store/blob-store.ts';

/** The staged blob of a session that has nothing to give: prefix 0, no file, nothing to dispose. */
export class NothingStaged implements StagedBlob {
  readonly digest: Digest;
  readonly size_bytes: number;
  readonly prefix_bytes = 0;
  readonly holds_pieces = false;

  constructor(digest: Digest, size_bytes: number) {
    this.digest = digest;
    this.size_bytes = size_bytes;
  }

  has(): boolean {
    return false;
  }

  write(): Promise<void> {
    return Promise.reject(this.#refused());
  }

  publish(): Promise<BlobInfo> {
    return Promise.reject(this.#refused());
  }

  drop(): Promise<void> {
    return Promise.resolve();
  }

  reread(): Promise<readonly number[]> {
    return Promise.resolve([]);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return Promise.resolve();
  }

  #refused(): DaemonError {
    return new DaemonError('failed_precondition', `nothing of blob ${this.digest} is staged`);
  }
}
