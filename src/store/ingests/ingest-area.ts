import * as fs from 'node:fs';
import { rm } from 'node:fs/promises';
import type { Clock } from '../../base/clock.ts';
import { DaemonError, errnoOf } from '../../base/errors.ts';
import type { Digest } from '../../oci/digest.ts';
import { MAX_REF_LENGTH } from '../../oci/ingest-ref.ts';
import type { Logger } from '../../ops/logger.ts';
import type { LocalCatalog } from '../blobs/blob-catalog.ts';
import type { BlobIndex } from '../blobs/blob-index.ts';
import type { BlobPlacement } from '../blobs/blob-placement.ts';
import type { IngestArea, IngestStatus } from '../blob-store.ts';
import type { CacheBudget } from '../blobs/cache-budget.ts';
import type { Chores } from '../disk/chores.ts';
import { fileError } from '../disk/file-errors.ts';
import { createIngest, findIngests, openData, writeTotal } from './ingest-files.ts';
import { IngestRecord } from './ingest-record.ts';
import { LocalIngest } from './local-ingest.ts';
import type { StoreMetrics } from '../metrics.ts';
import { PrefixHash } from '../disk/prefix-hash.ts';
import type { StoreLayout } from '../disk/layout.ts';

/** Most ingests at a time. containerd has one per blob being pulled and forgets them after a day. */
const INGESTS_MAX = 16_384;
/** Closed ingests whose running hash stays in memory, so that a resume reads nothing again: some 2 KiB each. */
const WARM_MAX = 1024;

export type IngestModules = {
  readonly layout: StoreLayout;
  readonly catalog: LocalCatalog;
  readonly index: BlobIndex;
  readonly placement: BlobPlacement;
  readonly budget: CacheBudget;
  readonly chores: Chores;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly metrics: StoreMetrics;
};

/** All ingests, in memory and on disk. Opening, status and abort touch neither the network nor existing bytes. */
export class LocalIngests implements IngestArea {
  readonly #m: IngestModules;
  readonly #records = new Map<string, IngestRecord>();
  /** Closed ingests, the longest closed first. */
  readonly #warm = new Set<IngestRecord>();

  constructor(modules: IngestModules) {
    this.#m = modules;
    for (const found of findIngests(modules.layout)) {
      this.#records.set(found.ref, new IngestRecord(modules, found));
    }
  }

  ingest(ref: string, options: { total_bytes: number; expected?: Digest }): Promise<LocalIngest> {
    // Everything up to the writer is synchronous: the thread pool may be busy with other blobs.
    return new Promise((resolve) => resolve(this.#open(ref, options)));
  }

  status(ref: string): IngestStatus | undefined {
    return this.#records.get(ref)?.status();
  }

  *statuses(): Iterable<IngestStatus> {
    for (const record of this.#records.values()) yield record.status();
  }

  abort(ref: string): Promise<void> {
    return new Promise((resolve) => {
      const record = this.#records.get(ref);
      if (record !== undefined) this.drop(record);
      resolve();
    });
  }

  /** The ingest is over: memory and directory forget it at once, its bytes are freed soon after. */
  drop(record: IngestRecord): void {
    record.gone = true;
    if (this.#records.get(record.ref) === record) this.#records.delete(record.ref);
    this.#warm.delete(record);
    this.unpin(record);
    const trash = this.#m.layout.fresh('trash');
    try {
      fs.renameSync(record.directory, trash);
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return;
      throw fileError(error, 'write', record.directory);
    }
    this.#m.chores.start('removed ingest not unlinked', () =>
      rm(trash, { recursive: true, force: true }),
    );
  }

  /** The adopted blob may be evicted again. */
  unpin(record: IngestRecord): void {
    if (record.adopted === undefined) return;
    record.adopted.pins -= 1;
    record.adopted = undefined;
    this.#m.budget.enforce();
  }

  /** A writer leaves. */
  release(record: IngestRecord): void {
    record.locked = false;
    if (record.gone) return;
    this.#warm.add(record);
    for (const oldest of this.#warm) {
      if (this.#warm.size <= WARM_MAX) break;
      this.#warm.delete(oldest);
      oldest.hash = undefined;
    }
  }

  /** Hashes the ingests found at start, one after another, until done or the signal fires. */
  async rehash(signal: AbortSignal): Promise<void> {
    for (const record of [...this.#records.values()]) {
      if (signal.aborted) return;
      if (record.hash !== undefined || record.gone) continue;
      this.#warm.add(record);
      await record.catchUp().catch((err: unknown) => {
        this.#m.logger.debug({ err, ref: record.ref }, 'ingest not hashed ahead of time');
      });
    }
  }

  #open(ref: string, options: { total_bytes: number; expected?: Digest }): LocalIngest {
    if (ref === '' || ref.length > MAX_REF_LENGTH) {
      throw new DaemonError('invalid_argument', `a ref has 1 to ${MAX_REF_LENGTH} characters`);
    }
    const found = this.#records.get(ref);
    if (found?.locked === true) {
      throw new DaemonError('unavailable', `ref ${ref} locked by another writer; try again`, {
        ref,
      });
    }
    const record = found ?? this.#create(ref, options.total_bytes);
    const fd = openData(record.directory);
    try {
      this.#reconcile(record, fd, options.total_bytes);
    } catch (error) {
      fs.closeSync(fd);
      throw fileError(error, 'write', record.data);
    }
    record.expected = options.expected ?? '';
    record.locked = true;
    this.#warm.delete(record);
    return new LocalIngest({ ...this.#m, ingests: this }, record, fd);
  }

  #create(ref: string, total_bytes: number): IngestRecord {
    if (this.#records.size >= INGESTS_MAX) {
      throw new DaemonError(
        'resource_exhausted',
        `there are ${INGESTS_MAX} unfinished ingests; abort some (ctr content active lists them)`,
      );
    }
    const now_ns = this.#m.clock.wall_ns();
    const directory = this.#m.layout.ingest(ref);
    // A leftover that the scan did not accept must not be taken for our bytes.
    fs.rmSync(directory, { recursive: true, force: true });
    createIngest(directory, { ref, total_bytes, now_ns });
    const record = new IngestRecord(this.#m, {
      ref,
      directory,
      offset_bytes: 0,
      total_bytes,
      started_ns: now_ns,
      updated_ns: now_ns,
    });
    record.hash = new PrefixHash();
    this.#records.set(ref, record);
    return record;
  }

  /** Brings memory, file and the writer's total together; starts again at 0 when they contradict each other. */
  #reconcile(record: IngestRecord, fd: number, total_bytes: number): void {
    const size = fs.fstatSync(fd).size;
    if (record.adopted === undefined && size !== record.offset_bytes) {
      record.offset_bytes = size;
      record.hash = undefined;
    }
    if (total_bytes > 0 && total_bytes !== record.total_bytes) {
      const fresh = record.total_bytes > 0;
      record.total_bytes = total_bytes;
      writeTotal(record.directory, total_bytes);
      if (fresh) this.#restart(record, fd);
    }
    if (record.total_bytes > 0 && record.status().offset_bytes > record.total_bytes) {
      this.#restart(record, fd);
    }
  }

  #restart(record: IngestRecord, fd: number): void {
    this.unpin(record);
    fs.ftruncateSync(fd, 0);
    record.reset(this.#m.clock.wall_ns());
  }
}
