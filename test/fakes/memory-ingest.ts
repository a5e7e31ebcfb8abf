import { DaemonError } from '../../src/base/errors.ts';
import { type Digest, digestOf } from '../../src/oci/digest.ts';
import type { BlobInfo, Ingest, IngestStatus, StagedBlob } from '../../src/store/blob-store.ts';
import { updatedLabels } from '../../src/store/blobs/labels.ts';
import { MemoryStaged } from './memory-staged.ts';
import { attempt, digestLike, type MemoryStore, statusOf } from './memory-store.ts';

export type MemoryRecord = {
  readonly ref: string;
  bytes: Uint8Array;
  total_bytes: number;
  expected: Digest | '';
  readonly started_ns: bigint;
  updated_ns: bigint;
  adopted: BlobInfo | undefined;
  writer: MemoryIngest | undefined;
  gone: boolean;
};

/** The fake store's writer of one ref. */
export class MemoryIngest implements Ingest {
  readonly ref: string;
  readonly #store: MemoryStore;
  readonly #record: MemoryRecord;

  constructor(store: MemoryStore, record: MemoryRecord) {
    this.ref = record.ref;
    this.#store = store;
    this.#record = record;
    record.writer = this;
  }

  status(): IngestStatus {
    return statusOf(this.#record);
  }

  ready(signal: AbortSignal): Promise<void> {
    return attempt(() => signal.throwIfAborted());
  }

  digest(): Digest {
    return this.#record.adopted?.digest ?? digestOf(this.#record.bytes);
  }

  write(bytes: Uint8Array): Promise<void> {
    return attempt(() => {
      const record = this.#open();
      if (record.adopted !== undefined) {
        throw new DaemonError('failed_precondition', `ingest ${this.ref} is complete already`);
      }
      if (this.#store.full) throw new DaemonError('resource_exhausted', 'no space left');
      record.bytes = Buffer.concat([record.bytes, bytes]);
      record.updated_ns = this.#store.wall_ns();
    });
  }

  truncate(): Promise<void> {
    return attempt(() => {
      const record = this.#open();
      record.adopted = undefined;
      record.bytes = new Uint8Array(0);
      record.updated_ns = this.#store.wall_ns();
    });
  }

  adopt(digest: Digest): Promise<void> {
    return attempt(() => {
      const record = this.#open();
      const info = this.#store.info(digest);
      if (info === undefined) {
        throw new DaemonError('not_found', `blob ${digest} is not in the store`, { digest });
      }
      record.adopted = info;
      record.bytes = new Uint8Array(0);
      record.updated_ns = this.#store.wall_ns();
    });
  }

  takePrefix(staged: StagedBlob, { move }: { move: boolean }): Promise<void> {
    return attempt(() => {
      const record = this.#open();
      if (!(staged instanceof MemoryStaged)) throw new TypeError('a staged blob of another store');
      record.bytes = staged.prefix();
      record.adopted = undefined;
      record.updated_ns = this.#store.wall_ns();
      if (move) staged.giveAway();
    });
  }

  commit(want: {
    size_bytes: number;
    expected: Digest | '';
    labels: Readonly<Record<string, string>>;
  }): Promise<BlobInfo> {
    return attempt(() => {
      const record = this.#open();
      const labels = updatedLabels({}, want.labels, 'replace');
      const { offset_bytes } = this.status();
      if (want.size_bytes > 0 && want.size_bytes !== offset_bytes) {
        throw new DaemonError(
          'failed_precondition',
          `unexpected commit size ${offset_bytes}, expected ${want.size_bytes}`,
        );
      }
      const digest = this.#finalDigest(want.expected);
      const owned = this.#store.blobs.get(digest)?.state === 'owned';
      this.#store.dropRecord(this.ref);
      if (owned) {
        throw new DaemonError('already_exists', `content ${digest}: already exists`, { digest });
      }
      // A cache copy counts for nothing here: only verified bytes become owned.
      const present = this.#store.info(digest) && this.#store.blobs.get(digest)?.bytes;
      return this.#store.addBlob(digest, present ?? record.bytes, 'owned', labels);
    });
  }

  [Symbol.asyncDispose](): Promise<void> {
    if (this.#record.writer === this) this.#record.writer = undefined;
    return Promise.resolve();
  }

  #finalDigest(expected: Digest | ''): Digest {
    const { adopted, bytes } = this.#record;
    const digest =
      adopted?.digest ?? (expected === '' ? digestOf(bytes) : digestLike(expected, bytes));
    if (expected !== '' && digest !== expected) {
      if (this.#record.total_bytes > 0) {
        this.#record.bytes = new Uint8Array(0);
        this.#record.adopted = undefined;
      }
      throw new DaemonError(
        'failed_precondition',
        `unexpected commit digest ${digest}, expected ${expected}`,
      );
    }
    return digest;
  }

  #open(): MemoryRecord {
    if (this.#record.gone || this.#record.writer !== this) {
      throw new DaemonError('not_found', `ingest ${this.ref} is not there any more`, {
        ref: this.ref,
      });
    }
    return this.#record;
  }
}
