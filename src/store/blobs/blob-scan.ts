import * as fs from 'node:fs';
import { join } from 'node:path';
import type { Clock } from '../../base/clock.ts';
import { DaemonError } from '../../base/errors.ts';
import { type Digest, isDigest } from '../../oci/digest.ts';
import type { Logger } from '../../ops/logger.ts';
import { fileError } from '../disk/file-errors.ts';
import { breathe } from '../disk/files.ts';
import type { StoreLayout } from '../disk/layout.ts';
import { type BlobEntry, type BlobIndex, NO_LABELS } from './blob-index.ts';
import type { Labels } from './labels.ts';

/** Files looked at without letting anything else run, and the longest that may take, in ms: some 3 µs each from the inode cache, and 5 ms from a slow disk. */
const SLICE_FILES = 512;
const SLICE_MS = 2;
/** Names read from a directory by one system call. */
const NAMES_AT_ONCE = 512;

type Modules = {
  readonly layout: StoreLayout;
  readonly index: BlobIndex;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Hears of every blob found without a piece list. */
  readonly found: (digest: Digest) => void;
};

type Kept = { readonly digest: Digest; readonly file: fs.Stats };

/**
 * Fills the index from what lies under `blobs/` (owned, whoever put it there) and in the cache folder, by `stat` alone, in slices between which calls
 * are answered. Until it has ended, a blob that the index is asked for is looked for at once, so that every answer about one blob is the one that a
 * finished scan would give; only what is said of all of them has to wait. Whatever is not a file with the name of a known digest is passed over.
 * As in containerd, mtime is the creation and atime the update time.
 */
export class BlobScan {
  readonly #m: Modules;
  readonly #slice_files: number;
  readonly #stop = new AbortController();
  /** Digests that have labels and were not found yet. */
  readonly #labelled: Set<Digest>;
  #job: Promise<void> | undefined;
  #looked = 0;
  #slice_ends_ms = 0;

  constructor(modules: Modules, config: { readonly slice_files?: number | undefined } = {}) {
    this.#m = modules;
    this.#slice_files = config.slice_files ?? SLICE_FILES;
    this.#labelled = new Set(modules.layout.labels.digests());
    modules.index.fillFrom((digest) => this.#look(digest));
  }

  /**
   * Resolves when every blob is in the index. The first call begins the scan. Rejects with the signal's reason when that fires first, `cancelled` after
   * `close`, or with the file system's error: then it is not known what is here, and stays so.
   */
  async ended(signal?: AbortSignal): Promise<void> {
    this.#job ??= this.#run().catch((error: unknown) => {
      throw fileError(error, 'read', this.#m.layout.content);
    });
    // Whoever asks gets the failure; it must not count as unhandled when nobody does.
    this.#job.catch(() => undefined);
    if (signal === undefined || this.#m.index.complete) return this.#job;
    const stopped = Promise.withResolvers<never>();
    const stop = (): void => stopped.reject(signal.reason);
    signal.addEventListener('abort', stop);
    try {
      signal.throwIfAborted();
      await Promise.race([this.#job, stopped.promise]);
    } finally {
      signal.removeEventListener('abort', stop);
    }
  }

  /** Ends a running scan within a slice. */
  async close(): Promise<void> {
    this.#stop.abort(new DaemonError('cancelled', 'the store closes'));
    await this.#job?.catch(() => undefined);
  }

  async #run(): Promise<void> {
    const { layout, index, clock, logger } = this.#m;
    const began_ms = clock.now_ms();
    await this.#pause();
    await this.#eachBelow(layout.blobs, (digest, file) => {
      if (!index.knows(digest)) this.#own(digest, file);
    });
    for (const digest of this.#labelled) if (!index.knows(digest)) layout.labels.remove(digest);
    this.#labelled.clear();
    await this.#scanCache();
    index.completed();
    const found = { blobs: index.size - index.cache_count, cached: index.cache_count };
    logger.info({ ...found, took_ms: Math.round(clock.now_ms() - began_ms) }, 'blobs found');
  }

  async #scanCache(): Promise<void> {
    const { layout, index } = this.#m;
    const found: Kept[] = [];
    await this.#eachBelow(layout.cache, (digest, file) => {
      if (!index.knows(digest)) found.push({ digest, file });
      // Also of a blob under `blobs/` that left since: its copy would come back at the next start.
      else if (index.peek(digest)?.state !== 'cache') this.#removeCopy(digest);
    });
    // Its rename into the cache changed the inode last: the oldest are the first to be evicted.
    found.sort((a, b) => a.file.ctimeMs - b.file.ctimeMs);
    const placed = new Set<BlobEntry>();
    for (const { digest, file } of found) {
      await this.#step();
      if (!index.knows(digest)) placed.add(this.#keep(digest, file));
    }
    // What came here or was asked for meanwhile is younger than all of them.
    for (const entry of [...index.cached()]) if (!placed.has(entry)) index.touch(entry);
  }

  /** The blob as the scan would find it, now. Two `stat` at most. */
  #look(digest: Digest): BlobEntry | undefined {
    const { layout } = this.#m;
    const file = this.#fileAt(layout.blob(digest));
    if (file !== undefined) {
      this.#removeCopy(digest);
      return this.#own(digest, file);
    }
    const copy = this.#fileAt(layout.cached(digest));
    return copy && this.#keep(digest, copy);
  }

  #own(digest: Digest, file: fs.Stats): BlobEntry {
    const { layout, logger } = this.#m;
    const labels = this.#labelled.delete(digest) ? readLabels(layout, digest, logger) : NO_LABELS;
    return this.#add({
      digest,
      size_bytes: file.size,
      created_ns: nanoseconds(file.mtimeMs),
      updated_ns: nanoseconds(Math.max(file.atimeMs, file.mtimeMs)),
      labels,
      state: 'owned',
    });
  }

  #keep(digest: Digest, file: fs.Stats): BlobEntry {
    if (this.#labelled.delete(digest)) this.#m.layout.labels.remove(digest);
    const time_ns = nanoseconds(file.mtimeMs);
    const times = { created_ns: time_ns, updated_ns: time_ns };
    return this.#add({
      digest,
      size_bytes: file.size,
      ...times,
      labels: NO_LABELS,
      state: 'cache',
    });
  }

  #add(blob: Parameters<BlobIndex['add']>[0]): BlobEntry {
    const entry = this.#m.index.add(blob);
    if (!entry.listed) this.#m.found(entry.digest);
    return entry;
  }

  /** A blob that lies under `blobs/` needs no copy in the cache. */
  #removeCopy(digest: Digest): void {
    const { layout, logger } = this.#m;
    try {
      fs.rmSync(layout.cached(digest), { force: true });
    } catch (err) {
      logger.warn({ err, digest }, 'superfluous cache copy stays');
    }
  }

  /** Its file is looked at in the moment in which it is reported: a name that was read earlier proves nothing. */
  async #eachBelow(root: string, onFile: (digest: Digest, file: fs.Stats) => void): Promise<void> {
    for (const algorithm of fs.readdirSync(root)) {
      const path = join(root, algorithm);
      if (fs.statSync(path, { throwIfNoEntry: false })?.isDirectory() !== true) continue;
      const directory = fs.opendirSync(path, { bufferSize: NAMES_AT_ONCE });
      try {
        for (let name = directory.readSync(); name !== null; name = directory.readSync()) {
          const digest = `${algorithm}:${name.name}`;
          if (!isDigest(digest)) continue;
          await this.#step();
          const file = this.#fileAt(`${path}/${name.name}`);
          if (file !== undefined) onFile(digest, file);
        }
      } finally {
        directory.closeSync();
      }
    }
  }

  /** One file that cannot be looked at is no blob, and costs none of the others: a pull writes it anew. */
  #fileAt(path: string): fs.Stats | undefined {
    try {
      const file = fs.statSync(path, { throwIfNoEntry: false });
      return file?.isFile() === true ? file : undefined;
    } catch (err) {
      this.#m.logger.warn(
        { err, path },
        'file passed over, because it cannot be looked at; check the disk',
      );
      return undefined;
    }
  }

  /** Before each file. */
  #step(): Promise<void> | undefined {
    this.#looked += 1;
    const goes_on =
      this.#looked < this.#slice_files && this.#m.clock.now_ms() < this.#slice_ends_ms;
    return goes_on ? undefined : this.#pause();
  }

  async #pause(): Promise<void> {
    await breathe();
    this.#stop.signal.throwIfAborted();
    this.#looked = 0;
    this.#slice_ends_ms = this.#m.clock.now_ms() + SLICE_MS;
  }
}

/** Plain numbers hold a time of day to a quarter of a microsecond; the exact kind costs three times as much per file. */
function nanoseconds(ms: number): bigint {
  return BigInt(Math.round(ms * 1000)) * 1000n;
}

function readLabels(layout: StoreLayout, digest: Digest, logger: Logger): Labels {
  try {
    const labels: unknown = JSON.parse(layout.labels.read(digest)?.toString() ?? '{}');
    if (typeof labels === 'object' && labels !== null && !Array.isArray(labels)) {
      return Object.fromEntries(
        Object.entries(labels).filter(
          (pair): pair is [string, string] => typeof pair[1] === 'string',
        ),
      );
    }
  } catch (err) {
    logger.warn({ err, digest }, 'labels of a blob are unreadable and dropped');
  }
  return NO_LABELS;
}
