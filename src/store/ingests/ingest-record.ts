import { join } from 'node:path';
import { DaemonError } from '../../base/errors.ts';
import type { Digest } from '../../oci/digest.ts';
import type { BlobEntry } from '../blobs/blob-index.ts';
import type { IngestStatus } from '../blob-store.ts';
import { breathe, closeFile, openFile, readAt } from '../disk/descriptor.ts';
import type { FoundIngest } from './ingest-files.ts';
import type { StoreMetrics } from '../metrics.ts';
import { HASH_SLICE_BYTES, PrefixHash } from '../disk/prefix-hash.ts';
import { Serial } from '../disk/serial.ts';

/** One ref's ingest in memory, whether or not somebody writes it now. */
export class IngestRecord {
  readonly ref: string;
  readonly directory: string;
  readonly started_ns: bigint;
  /** Orders the calls of all writers of the ref, the leaving and the coming one included. */
  readonly serial = new Serial();
  readonly #metrics: StoreMetrics;
  #catching: Promise<void> | undefined;
  #adopted: BlobEntry | undefined;
  updated_ns: bigint;
  offset_bytes: number;
  total_bytes: number;
  expected: Digest | '' = '';
  /** Undefined = given up to save memory; rebuilt at need. */
  hash: PrefixHash | undefined;
  /** Aborted or committed. */
  gone = false;
  locked = false;

  constructor(modules: { metrics: StoreMetrics }, found: FoundIngest) {
    this.#metrics = modules.metrics;
    this.ref = found.ref;
    this.directory = found.directory;
    this.started_ns = found.started_ns;
    this.updated_ns = found.updated_ns;
    this.offset_bytes = found.offset_bytes;
    this.total_bytes = found.total_bytes;
  }

  /** The bytes on disk are not the content: this blob is, as long as the store has it. */
  get adopted(): BlobEntry | undefined {
    return this.#adopted?.gone === true ? undefined : this.#adopted;
  }

  set adopted(entry: BlobEntry | undefined) {
    this.#adopted = entry;
  }

  get data(): string {
    return join(this.directory, 'data');
  }

  /** The running hash covers all bytes, and nothing else works on it. */
  get hashed(): boolean {
    return this.adopted !== undefined || (this.#catching === undefined && this.#covered);
  }

  status(): IngestStatus {
    const { ref, total_bytes, expected, started_ns, updated_ns } = this;
    const offset_bytes = this.adopted?.size_bytes ?? this.offset_bytes;
    return { ref, offset_bytes, total_bytes, expected, started_ns, updated_ns };
  }

  /** Starts again from nothing, in memory. */
  reset(now_ns: bigint): void {
    this.adopted = undefined;
    this.offset_bytes = 0;
    this.hash = new PrefixHash();
    this.updated_ns = now_ns;
  }

  /** Reads and hashes until the running hash covers all bytes. `data_loss` when the file is shorter than its offset; `not_found` when the ingest goes away. */
  async catchUp(): Promise<void> {
    while (!this.hashed) {
      if (this.gone) throw ingestGone(this.ref);
      this.#catching ??= this.#rebuild().finally(() => {
        this.#catching = undefined;
      });
      await this.#catching;
    }
  }

  get #covered(): boolean {
    return (this.hash?.offset_bytes ?? -1) >= this.offset_bytes;
  }

  async #rebuild(): Promise<void> {
    const hash = (this.hash ??= new PrefixHash());
    const fd = await openFile(this.data, 'r');
    try {
      // Another `hash` means truncated or replaced: what this descriptor shows is history.
      while (this.#isCurrent(hash) && !this.#covered) {
        const at = hash.offset_bytes;
        const bytes = await readAt(fd, Math.min(HASH_SLICE_BYTES, this.offset_bytes - at), at);
        if (!this.#isCurrent(hash)) return;
        if (bytes.length === 0) throw this.#tooShort(at);
        await hash.append(bytes);
        this.#metrics.rebuilt.inc({}, bytes.length);
        await breathe();
      }
    } finally {
      await closeFile(fd);
    }
  }

  #isCurrent(hash: PrefixHash): boolean {
    return this.hash === hash && !this.gone;
  }

  #tooShort(at: number): DaemonError {
    return new DaemonError(
      'data_loss',
      `the data of ingest ${this.ref} ends after ${at} bytes, ${this.offset_bytes} were written; abort it and pull again`,
      { ref: this.ref },
    );
  }
}

/** `not_found` for an ingest that was aborted or committed under its writer. */
export function ingestGone(ref: string): DaemonError {
  return new DaemonError('not_found', `ingest ${ref} was aborted or committed meanwhile`, { ref });
}
