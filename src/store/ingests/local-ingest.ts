import * as fs from 'node:fs';
import { type Digest, EMPTY_SHA256 } from '../../oci/digest.ts';
import { DaemonError } from '../../base/errors.ts';
import { missing } from '../blobs/blob-catalog.ts';
import type { BlobInfo, Ingest, IngestStatus, StagedBlob } from '../blob-store.ts';
import { closeFile, truncateFile, writeAt } from '../disk/descriptor.ts';
import { fileError } from '../disk/file-errors.ts';
import type { IngestModules, LocalIngests } from './ingest-area.ts';
import { commitIngest, type CommitWant } from './ingest-commit.ts';
import { openData, writeUpdated } from './ingest-files.ts';
import { type IngestRecord, ingestGone } from './ingest-record.ts';
import { copyPrefix } from '../disk/prefix-copy.ts';
import { PrefixHash } from '../disk/prefix-hash.ts';
import { LocalStaged } from '../staging/staged-blob.ts';

type Modules = IngestModules & { readonly ingests: LocalIngests };

/** The writer of one ref. Its calls run one after another; those marked memory answer between them. */
export class LocalIngest implements Ingest {
  readonly ref: string;
  readonly #m: Modules;
  readonly #record: IngestRecord;
  #fd: number;
  #closed = false;
  /** Bytes known to be on the disk itself. */
  #synced_bytes = 0;

  /** Takes over `fd`. */
  constructor(modules: Modules, record: IngestRecord, fd: number) {
    this.#m = modules;
    this.#record = record;
    this.#fd = fd;
    this.ref = record.ref;
  }

  status(): IngestStatus {
    return this.#record.status();
  }

  async ready(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    if (this.#live().hashed) return;
    const aborted = Promise.withResolvers<never>();
    const onAbort = (): void => aborted.reject(signal.reason as Error);
    signal.addEventListener('abort', onAbort, { once: true });
    try {
      await Promise.race([this.#record.catchUp(), aborted.promise]);
    } finally {
      signal.removeEventListener('abort', onAbort);
    }
  }

  digest(): Digest | '' {
    const { adopted, offset_bytes, hash } = this.#record;
    if (adopted !== undefined) return adopted.digest;
    if (offset_bytes === 0) return EMPTY_SHA256;
    return hash?.offset_bytes === offset_bytes ? hash.digest() : '';
  }

  write(bytes: Uint8Array): Promise<void> {
    return this.#record.serial.run(async () => {
      const record = this.#live();
      if (record.adopted !== undefined) {
        throw new DaemonError(
          'failed_precondition',
          `ingest ${this.ref} holds all of ${record.adopted.digest} already; truncate it to write anew`,
          { ref: this.ref },
        );
      }
      await this.#append(record, bytes);
      record.offset_bytes += bytes.length;
      record.updated_ns = this.#m.clock.wall_ns();
      this.#m.metrics.ingested.inc({}, bytes.length);
      if (!record.hashed) this.#m.chores.start('ingest not hashed', () => settled(record));
      if (record.total_bytes > 0 && record.offset_bytes >= record.total_bytes) await this.#sync();
    });
  }

  truncate(): Promise<void> {
    return this.#record.serial.run(() => this.#empty());
  }

  adopt(digest: Digest): Promise<void> {
    return this.#record.serial.run(async () => {
      const record = this.#live();
      if (record.adopted?.digest === digest) return;
      const entry = this.#m.catalog.intact(digest) ?? missing(digest);
      // From here on it cannot be evicted.
      entry.pins += 1;
      await this.#empty();
      if (this.#m.index.get(digest) !== entry) missing(digest);
      record.adopted = entry;
    });
  }

  takePrefix(staged: StagedBlob, { move }: { move: boolean }): Promise<void> {
    if (!(staged instanceof LocalStaged)) throw new TypeError('a staged blob of another store');
    return this.#record.serial.run(async () => {
      const record = this.#live();
      await staged.givePrefix({ move }, async ({ path, bytes, hash }) => {
        if (move) fs.renameSync(path, record.data);
        else await copyPrefix(path, record.data, bytes);
        const old = this.#fd;
        this.#fd = openData(record.directory);
        await closeFile(old);
        await truncateFile(this.#fd, bytes);
        this.#m.ingests.unpin(record);
        record.offset_bytes = bytes;
        record.hash = hash ?? new PrefixHash();
      });
      record.updated_ns = this.#m.clock.wall_ns();
      this.#synced_bytes = 0;
      if (!record.hashed) this.#m.chores.start('ingest not hashed', () => settled(record));
      if (record.total_bytes > 0 && record.offset_bytes >= record.total_bytes) await this.#sync();
    });
  }

  commit(want: CommitWant): Promise<BlobInfo> {
    return this.#record.serial.run(() =>
      commitIngest(
        { ...this.#m, sync: () => this.#sync(), empty: () => this.#empty() },
        this.#live(),
        want,
      ),
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    const record = this.#record;
    await record.serial.run(() => {
      // Synchronous: the answer to a commit waits for this, and the thread pool may be busy with other blobs' data.
      fs.closeSync(this.#fd);
      try {
        if (!record.gone) writeUpdated(record.directory, record.updated_ns);
      } catch (err) {
        // Only a display time; the file's own mtime says nearly the same.
        this.#m.logger.debug({ err, ref: this.ref }, 'update time of an ingest not written');
      }
      this.#m.ingests.release(record);
      return Promise.resolve();
    });
  }

  /** Writes and hashes side by side. A failed write leaves file and hash as they were before. */
  async #append(record: IngestRecord, bytes: Uint8Array): Promise<void> {
    const start = record.offset_bytes;
    const hash = record.hashed ? record.hash : undefined;
    const before = hash?.copy();
    const [written] = await Promise.allSettled([
      writeAt(this.#fd, bytes, start),
      hash?.append(bytes),
    ]);
    if (written.status === 'fulfilled') return;
    if (before !== undefined && record.hash === hash) record.hash = before;
    await truncateFile(this.#fd, start).catch((err: unknown) => {
      this.#m.logger.warn({ err, ref: this.ref }, 'failed write of an ingest not undone');
    });
    throw fileError(written.reason, 'write', record.data);
  }

  async #empty(): Promise<void> {
    const record = this.#live();
    await truncateFile(this.#fd, 0).catch((error: unknown) => {
      throw fileError(error, 'write', record.data);
    });
    this.#m.ingests.unpin(record);
    record.reset(this.#m.clock.wall_ns());
    this.#synced_bytes = 0;
  }

  /** After a failed fsync nobody knows what is on the disk: the ingest starts anew. */
  async #sync(): Promise<void> {
    if (this.#synced_bytes === this.#record.offset_bytes) return;
    try {
      await this.#m.placement.sync(this.#fd, this.#record.data);
      this.#synced_bytes = this.#record.offset_bytes;
    } catch (error) {
      this.#m.logger.error(
        { err: error, ref: this.ref },
        'fsync of an ingest failed; check the disk',
      );
      await this.#empty();
      throw error;
    }
  }

  #live(): IngestRecord {
    if (this.#closed || this.#record.gone) throw ingestGone(this.ref);
    return this.#record;
  }
}

/** Catches up; an ingest that goes away meanwhile needs no hash, and other failures show at `ready` and commit. */
async function settled(record: IngestRecord): Promise<void> {
  await record.catchUp().catch(() => undefined);
}
