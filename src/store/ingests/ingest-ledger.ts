import { join } from 'node:path';
import type { Clock } from '../../base/clock.ts';
import { DaemonError, errnoOf } from '../../base/errors.ts';
import { algorithmOf, type Digest } from '../../oci/digest.ts';
import type { Logger } from '../../ops/logger.ts';
import type { LocalCatalog } from '../blobs/blob-catalog.ts';
import type { BlobEntry } from '../blobs/blob-index.ts';
import type { IngestStatus } from '../blob-store.ts';
import type { Chores } from '../disk/chores.ts';
import { fileError } from '../disk/file-errors.ts';
import type { Files } from '../disk/files.ts';
import type { SyncLane } from '../disk/sync-lane.ts';
import type { StoreLayout } from '../disk/layout.ts';
import type { PrefixHash } from '../disk/prefix-hash.ts';
import { Serial } from '../disk/serial.ts';
import type { StoreMetrics } from '../metrics.ts';
import { findIngests, type FoundIngest } from './ingest-files.ts';
import { RunningHash } from './running-hash.ts';

/** Most ingests at a time. containerd has one per blob being pulled and forgets them after a day. */
const INGESTS_MAX = 16_384;
/** Closed ingests whose running hash stays in memory, so that a resume reads nothing again: some 2 KiB each. */
const WARM_MAX = 1024;

/** One ref's ingest, whether or not somebody writes it now. Everybody reads it, only the ledger changes its state. */
export interface IngestRecord {
  readonly ref: string;
  readonly directory: string;
  /** Path of its bytes. */
  readonly data: string;
  readonly started_ns: bigint;
  /** Orders the calls of all writers of the ref, the leaving and the coming one included. */
  readonly serial: Serial;
  readonly hash: RunningHash;
  readonly offset_bytes: number;
  readonly total_bytes: number;
  /** Digest that the ref or the writer names; '' when none does. */
  readonly named: Digest | '';
  /** Its directory is on the disk. Before that it lives in memory only, so that opening it costs containerd's transaction nothing. */
  readonly made: boolean;
  /** Bytes in its file that do not count any more. */
  readonly stale: boolean;
  /** Aborted or committed. */
  readonly gone: boolean;
  /** The content is this blob (adopted, or published from its own bytes), as long as the store has it; no bytes lie in its file then. */
  readonly held: BlobEntry | undefined;
  status(): IngestStatus;
}

/** What an opener says. */
export type OpenIngest = {
  readonly total_bytes: number;
  readonly expected?: Digest;
  /** The digest in the ref, when it names one. */
  readonly named?: Digest;
};

export type LedgerModules = {
  readonly layout: StoreLayout;
  readonly files: Files;
  readonly catalog: LocalCatalog;
  readonly lane: SyncLane;
  readonly chores: Chores;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly metrics: StoreMetrics;
};

/** All ingests in memory, and the one place where the state of an ingest changes. Opening, status and dropping touch no existing bytes. */
export class IngestLedger {
  readonly #m: LedgerModules;
  readonly #records = new Map<string, Entry>();
  /** Closed ingests, the longest closed first. */
  readonly #warm = new Set<Entry>();

  constructor(modules: LedgerModules) {
    this.#m = modules;
    const { layout, files, chores } = modules;
    const onBroken = (path: string): void => {
      chores.start('broken ingest not removed', () => files.remove(path));
    };
    for (const found of findIngests(layout, onBroken)) {
      this.#records.set(found.ref, new Entry(modules, found, true));
    }
  }

  get(ref: string): IngestRecord | undefined {
    return this.#records.get(ref);
  }

  all(): Iterable<IngestRecord> {
    return this.#records.values();
  }

  /** Memory. Takes the lock of a ref; makes the record when it is new. A total that contradicts the earlier one starts it again at 0. */
  open(ref: string, opener: OpenIngest): IngestRecord {
    const found = this.#records.get(ref);
    if (found?.locked === true) {
      throw new DaemonError('unavailable', `ref ${ref} locked by another writer; try again`, {
        ref,
      });
    }
    const record = found ?? this.#create(ref, opener.total_bytes);
    const { total_bytes } = opener;
    if (total_bytes > 0 && total_bytes !== record.total_bytes) {
      if (record.total_bytes > 0) this.startAnew(record);
      record.total_bytes = total_bytes;
      record.total_written = false;
    }
    if (record.total_bytes > 0 && record.status().offset_bytes > record.total_bytes) {
      this.startAnew(record);
    }
    record.expected = opener.expected ?? '';
    record.named = opener.named ?? opener.expected ?? '';
    record.follow();
    record.locked = true;
    this.#warm.delete(record);
    return record;
  }

  /** A writer leaves. */
  release(record: IngestRecord): void {
    const entry = this.#entry(record);
    entry.locked = false;
    if (entry.gone) return;
    this.#warm.add(entry);
    for (const oldest of this.#warm) {
      if (this.#warm.size <= WARM_MAX) break;
      this.#warm.delete(oldest);
      oldest.hash.current = undefined;
    }
  }

  /** Its directory is there now. */
  made(record: IngestRecord): void {
    this.#entry(record).made = true;
  }

  /** True once for every total that has to be written beside the bytes. */
  takeTotal(record: IngestRecord): boolean {
    const entry = this.#entry(record);
    const due = !entry.total_written;
    entry.total_written = true;
    return due;
  }

  /** Bytes were appended. */
  grew(record: IngestRecord, bytes: number): void {
    const entry = this.#entry(record);
    entry.offset_bytes += bytes;
    entry.updated_ns = this.#m.clock.wall_ns();
  }

  /** Its file holds `offset_bytes`, which are to count from now on; `hash` covers them, unless it has to be made anew. */
  found(record: IngestRecord, offset_bytes: number, hash: PrefixHash | undefined): void {
    const entry = this.#entry(record);
    this.#letGo(entry);
    entry.offset_bytes = offset_bytes;
    entry.hash.current = hash;
    entry.stale = false;
    entry.updated_ns = this.#m.clock.wall_ns();
  }

  /** Back to offset 0. What lies in its file is stale until `found` says otherwise. */
  startAnew(record: IngestRecord): void {
    const entry = this.#entry(record);
    this.#letGo(entry);
    entry.offset_bytes = 0;
    entry.hash.current = entry.hash.fresh();
    entry.stale = entry.made;
    entry.updated_ns = this.#m.clock.wall_ns();
  }

  /** The content is this blob from now on. Takes over one pin of it. */
  hold(record: IngestRecord, blob: BlobEntry): void {
    const entry = this.#entry(record);
    this.#letGo(entry);
    entry.blob = blob;
    entry.offset_bytes = 0;
    entry.hash.current = entry.hash.fresh();
    entry.stale = entry.made;
    entry.updated_ns = this.#m.clock.wall_ns();
  }

  /** The ingest is over: memory and directory forget it at once, its bytes are freed soon after. Unknown = done already. */
  drop(record: IngestRecord): void {
    const entry = this.#entry(record);
    entry.gone = true;
    if (this.#records.get(entry.ref) === entry) this.#records.delete(entry.ref);
    this.#warm.delete(entry);
    this.#letGo(entry);
    if (!entry.made) return;
    const { layout, files, chores } = this.#m;
    const trash = layout.fresh('trash');
    try {
      // A rename, so that a new ingest of the same ref can begin in the next moment.
      files.renameNow(entry.directory, trash);
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return;
      throw fileError(error, 'write', entry.directory);
    }
    chores.start('removed ingest not unlinked', () => files.remove(trash));
  }

  /** Hashes the ingests found at start, one after another, until done or the signal fires. */
  async rehash(signal: AbortSignal): Promise<void> {
    for (const record of [...this.#records.values()]) {
      if (signal.aborted) return;
      if (record.hash.current !== undefined || record.gone) continue;
      this.#warm.add(record);
      await record.hash.catchUp(record).catch((err: unknown) => {
        this.#m.logger.debug({ err, ref: record.ref }, 'ingest not hashed ahead of time');
      });
    }
  }

  #create(ref: string, total_bytes: number): Entry {
    if (this.#records.size >= INGESTS_MAX) {
      throw new DaemonError(
        'resource_exhausted',
        `there are ${INGESTS_MAX} unfinished ingests; abort some (ctr content active lists them)`,
      );
    }
    const now_ns = this.#m.clock.wall_ns();
    const directory = this.#m.layout.ingest(ref);
    const times = { started_ns: now_ns, updated_ns: now_ns };
    const fresh = { ref, directory, offset_bytes: 0, total_bytes, ...times };
    const record = new Entry(this.#m, fresh, false);
    record.hash.current = record.hash.fresh();
    this.#records.set(ref, record);
    return record;
  }

  #letGo(entry: Entry): void {
    const { blob } = entry;
    entry.blob = undefined;
    if (blob !== undefined) this.#m.catalog.unpin(blob);
  }

  #entry(record: IngestRecord): Entry {
    if (record instanceof Entry) return record;
    throw new TypeError('an ingest of another ledger');
  }
}

/** The record as only the ledger may touch it. */
class Entry implements IngestRecord {
  readonly ref: string;
  readonly directory: string;
  readonly started_ns: bigint;
  readonly serial = new Serial();
  readonly hash: RunningHash;
  updated_ns: bigint;
  offset_bytes: number;
  total_bytes: number;
  total_written = true;
  expected: Digest | '' = '';
  named: Digest | '' = '';
  made: boolean;
  stale = false;
  gone = false;
  locked = false;
  blob: BlobEntry | undefined;

  constructor(
    modules: { files: Files; metrics: StoreMetrics },
    found: FoundIngest,
    is_made: boolean,
  ) {
    this.ref = found.ref;
    this.directory = found.directory;
    this.started_ns = found.started_ns;
    this.updated_ns = found.updated_ns;
    this.offset_bytes = found.offset_bytes;
    this.total_bytes = found.total_bytes;
    this.made = is_made;
    this.hash = new RunningHash(modules);
  }

  /** The running hash answers for the digest that is named. */
  follow(): void {
    if (this.named === '') return;
    this.hash.follow(algorithmOf(this.named));
    if (this.offset_bytes === 0) this.hash.current ??= this.hash.fresh();
  }

  get data(): string {
    return join(this.directory, 'data');
  }

  get held(): BlobEntry | undefined {
    return this.blob?.gone === true ? undefined : this.blob;
  }

  status(): IngestStatus {
    const { ref, total_bytes, expected, started_ns, updated_ns } = this;
    const offset_bytes = this.held?.size_bytes ?? this.offset_bytes;
    return { ref, offset_bytes, total_bytes, expected, started_ns, updated_ns };
  }
}
