import { constants } from 'node:fs';
import { DaemonError } from '../../base/errors.ts';
import { type Digest, EMPTY_SHA256 } from '../../oci/digest.ts';
import { missing } from '../blobs/blob-catalog.ts';
import type { BlobInfo, Ingest, IngestStatus, StagedBlob } from '../blob-store.ts';
import { fileError } from '../disk/file-errors.ts';
import { isSameFile, writeAt } from '../disk/files.ts';
import type { SyncTurn } from '../disk/sync-lane.ts';
import { type GivenPrefix, LocalStaged } from '../staging/staged-blob.ts';
import { makeIngest, writeTotal, writeUpdated } from './ingest-files.ts';
import { commitIngest, type CommitWant } from './ingest-commit.ts';
import type { IngestLedger, IngestRecord, LedgerModules } from './ingest-ledger.ts';
import { useCopy } from './prefix-copy.ts';
import { ingestGone } from './running-hash.ts';
import { WholeIngest } from './whole-ingest.ts';
import { WriteBehind } from './write-behind.ts';

export type IngestModules = LedgerModules & { readonly ledger: IngestLedger };

/**
 * The writer of one ref. Its calls run one after another; those marked memory answer between them. Nothing is on the disk before the
 * second call, because containerd holds a database transaction during the first.
 */
export class LocalIngest implements Ingest {
  readonly ref: string;
  readonly #m: IngestModules;
  readonly #record: IngestRecord;
  readonly #whole: WholeIngest;
  /** The file at `record.data`, once it is open. */
  #file: WriteBehind | undefined;
  #closed = false;
  /** Its bytes are of this writer: if they are wrong, its commit shall hear it. */
  #has_written = false;

  constructor(modules: IngestModules, record: IngestRecord) {
    this.#m = modules;
    this.#record = record;
    this.#whole = new WholeIngest(modules, record);
    this.ref = record.ref;
  }

  status(): IngestStatus {
    return this.#record.status();
  }

  async ready(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    const record = this.#live();
    if (record.held !== undefined) return;
    const isIdle = this.#file !== undefined && record.hash.covers(record);
    if (isIdle && (this.#has_written || !this.#whole.isComplete())) return;
    const aborted = Promise.withResolvers<never>();
    const onAbort = (): void => aborted.reject(signal.reason as Error);
    signal.addEventListener('abort', onAbort, { once: true });
    try {
      const opened = record.serial.run(() => this.#open());
      // Not within the turn of the ref's calls: a writer may go on while bytes of an earlier process are hashed.
      const hashed = opened.then(() => record.hash.catchUp(record));
      const done = hashed.then(() => record.serial.run(() => this.#complete('resumed')));
      done.catch(() => undefined);
      await Promise.race([done, aborted.promise]);
    } finally {
      signal.removeEventListener('abort', onAbort);
    }
  }

  digest(): Digest | '' {
    const { held, offset_bytes, hash } = this.#record;
    if (held !== undefined) return held.digest;
    if (offset_bytes === 0) return EMPTY_SHA256;
    return hash.current?.offset_bytes === offset_bytes ? hash.current.digest() : '';
  }

  write(bytes: Uint8Array): Promise<void> {
    return this.#record.serial.run(async () => {
      const record = this.#live();
      if (record.held !== undefined) {
        throw new DaemonError(
          'failed_precondition',
          `ingest ${this.ref} holds all of ${record.held.digest} already; truncate it to write anew`,
          { ref: this.ref },
        );
      }
      await this.#append(await this.#open(), bytes);
      this.#has_written = true;
      this.#m.ledger.grew(record, bytes.length);
      this.#m.metrics.ingested.inc({}, bytes.length);
      this.#hashOn();
      await this.#complete('written');
      await this.#forceBehind(bytes.length);
    });
  }

  truncate(): Promise<void> {
    return this.#record.serial.run(() => this.#empty());
  }

  adopt(digest: Digest): Promise<void> {
    return this.#record.serial.run(() => {
      const record = this.#live();
      if (record.held?.digest === digest) return Promise.resolve();
      const entry = this.#m.catalog.intact(digest) ?? missing(digest);
      entry.pins += 1;
      this.#m.ledger.hold(record, entry);
      this.#closeFile();
      return Promise.resolve();
    });
  }

  takePrefix(staged: StagedBlob, { move }: { move: boolean }): Promise<void> {
    if (!(staged instanceof LocalStaged)) throw new TypeError('a staged blob of another store');
    return this.#record.serial.run(async () => {
      const record = this.#live();
      await this.#make(record);
      let bytes = 0;
      await staged.givePrefix({ move }, async (given) => {
        bytes = given.bytes;
        // The descriptor comes first and nothing is opened after the rename: whatever fails, descriptor and name stay one file.
        if (move) this.#replaceData(record, given);
        else await useCopy(this.#m, given, (copy) => this.#replaceData(record, copy));
        this.#m.ledger.found(record, bytes, given.hash ?? record.hash.fresh());
      });
      await this.#cut(bytes);
      this.#hashOn();
      await this.#complete('written');
    });
  }

  commit(want: CommitWant): Promise<BlobInfo> {
    return this.#record.serial.run(async () => {
      const record = this.#live();
      return await commitIngest(
        {
          ...this.#m,
          publish: (expected) => this.#publishNow(record, expected),
          publishAnew: (expected) => this.#publishAnew(record, expected),
          empty: () => this.#empty(),
        },
        record,
        want,
      );
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    const record = this.#record;
    await record.serial.run(async () => {
      await this.#file?.settled().catch(() => record.gone || this.#m.ledger.startAnew(record));
      this.#closeFile();
      this.#m.ledger.release(record);
    });
  }

  /** The file of the ref's bytes, open; what does not count any more is cut off. */
  async #open(): Promise<number> {
    const record = this.#live();
    if (this.#file !== undefined) return this.#file.fd;
    const { files, ledger } = this.#m;
    await this.#make(record);
    const flags = constants.O_RDWR | constants.O_CREAT;
    let fd: number;
    try {
      fd = await files.open(record.data, flags, 0o666);
    } catch (error) {
      throw fileError(error, 'write', record.data);
    }
    this.#file = new WriteBehind(this.#m, fd, record.data);
    this.#live();
    if (record.held !== undefined) return fd;
    const { size_bytes } = files.identityNow(fd);
    const isTooLong = record.total_bytes > 0 && size_bytes > record.total_bytes;
    if (record.stale || isTooLong) await this.#empty();
    else if (size_bytes !== record.offset_bytes) ledger.found(record, size_bytes, undefined);
    return fd;
  }

  async #make(record: IngestRecord): Promise<void> {
    const { files, ledger } = this.#m;
    if (!record.made) {
      await makeIngest(files, record.directory, record);
      this.#live();
      ledger.made(record);
    } else if (ledger.takeTotal(record)) {
      await writeTotal(files, record.directory, record.total_bytes);
    }
  }

  /** Synchronous from the check to the rename. */
  #replaceData(record: IngestRecord, { fd, path }: Pick<GivenPrefix, 'fd' | 'path'>): void {
    const { files } = this.#m;
    this.#live();
    try {
      if (!isSameFile(files.identityNow(fd), files.lookNow(path))) {
        throw new DaemonError('data_loss', `the file ${path} was replaced by something else`);
      }
      files.renameNow(path, record.data);
    } catch (error) {
      throw fileError(error, 'write', record.data);
    }
    this.#closeFile();
    this.#file = new WriteBehind(this.#m, fd, record.data);
  }

  /** Writes and hashes side by side. A failed write leaves file and hash as they were before, or the ingest starts anew. */
  async #append(fd: number, bytes: Uint8Array): Promise<void> {
    const record = this.#record;
    const { files } = this.#m;
    const start = record.offset_bytes;
    const hash = record.hash.covers(record) ? record.hash.current : undefined;
    const before = hash?.copy();
    const [written] = await Promise.allSettled([
      writeAt(files, fd, bytes, start),
      hash?.append(bytes),
    ]);
    if (written.status === 'fulfilled') return;
    if (before !== undefined && record.hash.current === hash) record.hash.current = before;
    await this.#cut(start);
    throw fileError(written.reason, 'write', record.data);
  }

  /** The file ends there. When that cannot be had nobody knows what is in it: the ingest is dropped. */
  async #cut(size_bytes: number): Promise<void> {
    const record = this.#record;
    try {
      if (this.#file !== undefined) await this.#m.files.truncate(this.#file.fd, size_bytes);
    } catch (error) {
      this.#m.ledger.drop(record);
      throw fileError(error, 'write', record.data);
    }
  }

  async #empty(): Promise<void> {
    const record = this.#live();
    this.#m.ledger.startAnew(record);
    if (!record.made) return;
    if (this.#file === undefined) await this.#open();
    else {
      await this.#cut(0);
      this.#m.ledger.found(record, 0, record.hash.fresh());
    }
  }

  /**
   * All bytes are here: they are verified, made durable and published before the caller hears of it, so that the commit costs nothing. Bytes that
   * disagree with the ref stay for the commit to refuse, if they were just written; those of an earlier process are dropped.
   */
  async #complete(how: 'written' | 'resumed'): Promise<void> {
    const record = this.#live();
    if (!this.#whole.isComplete()) return;
    await record.hash.catchUp(record);
    const digest = await this.#whole.digest(record.named);
    if (record.named !== '' && digest !== record.named) {
      if (how === 'resumed' && !this.#has_written) await this.#empty();
      return;
    }
    await this.#publish(digest, 'in turn');
  }

  /** Nothing tells this writer's last byte from its others: what it writes goes to the disk as it comes, for its commit to find little to do. */
  async #forceBehind(bytes: number): Promise<void> {
    const record = this.#record;
    if (record.total_bytes > 0 || record.held !== undefined) return;
    try {
      await this.#file?.wrote(bytes);
    } catch (error) {
      await this.#loseBytes(error);
    }
  }

  /**
   * For a commit of bytes whose end nobody had said: the commit itself makes them durable. containerd 2 warns its own store before the transaction (`Sync`), and a
   * proxy never: a STAT within it is all that comes between. To publish at each pause would help nobody, as a commit follows its last WRITE at once.
   */
  async #publishNow(record: IngestRecord, expected: Digest | ''): Promise<Digest> {
    await this.#open();
    await record.hash.catchUp(record);
    const digest = await this.#whole.digest(expected);
    if (expected === '' || digest === expected) await this.#publish(digest, 'now');
    return digest;
  }

  /** The committer expects an algorithm that nobody had named before: the blob is hashed again, and kept a second time under that digest. */
  async #publishAnew(record: IngestRecord, expected: Digest): Promise<Digest> {
    const { held } = record;
    if (held === undefined) return await this.#publishNow(record, expected);
    const entry = await this.#whole.publishCopy(held, expected);
    if (!(typeof entry === 'string')) this.#m.ledger.hold(record, entry);
    return typeof entry === 'string' ? entry : entry.digest;
  }

  async #publish(digest: Digest, turn: SyncTurn): Promise<void> {
    const record = this.#live();
    const fd = await this.#open();
    try {
      await this.#file?.settled();
      const entry = await this.#whole.publish(fd, digest, turn);
      this.#live();
      this.#m.ledger.hold(record, entry);
      // The descriptor may be the blob's by now, and is closed before anybody can write to it.
      this.#closeFile();
    } catch (error) {
      const isOurs = this.#whole.isAt(fd, record.data);
      // It could be moved and not moved back: what lies under `blobs/` is never written to.
      if (!isOurs) this.#closeFile();
      if (isOurs && this.#whole.keepsBytesAfter(error)) throw error;
      await this.#loseBytes(error);
    }
  }

  /** After a failed force nobody knows what is on the disk: the ingest starts anew, and its writer hears why. */
  async #loseBytes(error: unknown): Promise<never> {
    this.#m.logger.error({ err: error, ref: this.ref }, 'ingest starts anew; check the disk');
    if (!this.#record.gone) await this.#empty();
    throw error;
  }

  /** Hashes in the background what was written while the hash was still behind. Failures show at `ready` and commit. */
  #hashOn(): void {
    const record = this.#record;
    if (record.held !== undefined || record.hash.covers(record)) return;
    this.#m.chores.start('ingest not hashed', () =>
      record.hash.catchUp(record).catch(() => undefined),
    );
  }

  /** Nobody waits for it: closing frees the blocks of a removed file, which takes a while. */
  #closeFile(): void {
    const file = this.#file;
    const record = this.#record;
    const { files, chores } = this.#m;
    this.#file = undefined;
    if (file === undefined) return;
    chores.start('ingest not closed', async () => {
      await file.close();
      // Only a display time; the file's own mtime says nearly the same.
      if (!record.gone && record.held === undefined) {
        const { updated_ns } = record.status();
        await writeUpdated(files, record.directory, updated_ns).catch(() => undefined);
      }
    });
  }

  #live(): IngestRecord {
    if (this.#closed || this.#record.gone) throw ingestGone(this.ref);
    return this.#record;
  }
}
