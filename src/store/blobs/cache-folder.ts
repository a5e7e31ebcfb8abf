import * as fs from 'node:fs';
import { join } from 'node:path';
import type { Clock } from '../../base/clock.ts';
import { errnoOf } from '../../base/errors.ts';
import { algorithmOf, createHasher, type Digest, runningDigest } from '../../oci/digest.ts';
import type { Logger } from '../../ops/logger.ts';
import type { Chores } from '../disk/chores.ts';
import { breathe, type Files, readInto } from '../disk/files.ts';
import type { StoreLayout } from '../disk/layout.ts';
import { HASH_SLICE_BYTES } from '../disk/prefix-hash.ts';
import type { StoreMetrics } from '../metrics.ts';
import type { BlobEntry, BlobIndex } from './blob-index.ts';
import type { BlobRemoval } from './blob-removal.ts';
import type { CacheBudget } from './cache-budget.ts';
import type { Publication } from './publication.ts';

/**
 * How long a published blob waits under `blobs/` for containerd to take it, in ms. containerd asks for the layers of an image three at a time
 * and unpacks in between.
 */
export const ARRIVAL_KEEP_MS = 10 * 60_000;
/** Published blobs that leave `blobs/` within one call of containerd. */
const SWEEP_MAX = 16;

type Modules = {
  readonly index: BlobIndex;
  readonly removal: BlobRemoval;
  readonly budget: CacheBudget;
  readonly publication: Publication;
  readonly layout: StoreLayout;
  readonly files: Files;
  readonly chores: Chores;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly metrics: StoreMetrics;
};

/**
 * The way out of `blobs/` and back. Everything there is containerd's, whoever runs its store today, so a file leaves only while containerd
 * itself calls us (which proves that it does not use its own store at this moment), and comes back only verified. Never by our own clock: containerd may
 * have been restarted on its own store seconds ago, whose `Info` says yes to any file under `blobs/`, so that it owns a published blob without a word to us.
 */
export class CacheFolder {
  readonly #m: Modules;
  readonly #restoring = new Map<Digest, Promise<boolean>>();

  constructor(modules: Modules) {
    this.#m = modules;
  }

  /** At once, and only within a call of containerd: nobody references the blob any more. It stays for peers, if the budget allows. */
  take(entry: BlobEntry): void {
    const { index, layout, removal, budget, logger } = this.#m;
    if (!budget.keeps) {
      removal.discard(entry);
      return;
    }
    try {
      fs.renameSync(layout.blob(entry.digest), layout.cached(entry.digest));
    } catch (err) {
      // containerd must hear of no failure here: its garbage collection would stop at it. What stays is deleted anew after a restart.
      if (errnoOf(err) !== 'ENOENT') {
        logger.warn({ err, digest: entry.digest }, 'deleted blob stays under blobs/');
      }
      removal.forget(entry);
      return;
    }
    index.setState(entry, 'cache');
    budget.enforce();
  }

  /**
   * In the event loop's turn after a call of containerd, so that its transaction does not wait: a published blob that it has just given up. Whoever takes it
   * up in between (an `Info`, another ingest, a new publication) keeps it.
   */
  takeSoon(entry: BlobEntry): void {
    if (entry.state !== 'published' || entry.pins > 0) return;
    entry.kept_until_ms = -Infinity;
    this.#m.chores.start('abandoned blob not moved', async () => {
      await breathe();
      if (this.#isLeft(entry)) this.take(entry);
    });
  }

  /** Within a call of containerd: published blobs that it did not ask for in time go to the cache. Bounded. */
  sweep(): void {
    const { index } = this.#m;
    if (index.published_count === 0) return;
    let swept = 0;
    for (const entry of index.published()) {
      if (swept >= SWEEP_MAX) return;
      if (!this.#isLeft(entry)) continue;
      this.take(entry);
      swept += 1;
    }
  }

  /** Published, and nobody waits for it any more. */
  #isLeft({ state, gone, pins, kept_until_ms }: BlobEntry): boolean {
    return state === 'published' && !gone && pins === 0 && kept_until_ms <= this.#m.clock.now_ms();
  }

  /**
   * Brings a cache blob back under `blobs/`, verified from its first to its last byte and durable. False when it is not here, or not what it
   * was: then it is in quarantine. Costs a read of the blob, so never within a transaction of containerd. Errors of the file system pass through.
   */
  restore(digest: Digest): Promise<boolean> {
    const running = this.#restoring.get(digest);
    if (running !== undefined) return running;
    const job = this.#restore(digest).finally(() => this.#restoring.delete(digest));
    this.#restoring.set(digest, job);
    return job;
  }

  async #restore(digest: Digest): Promise<boolean> {
    const { index, files, layout, clock, metrics } = this.#m;
    const entry = index.get(digest);
    if (entry?.state !== 'cache') return entry !== undefined;
    entry.pins += 1;
    const path = layout.cached(digest);
    const began_ms = clock.now_ms();
    try {
      const fd = await files.open(path, 'r');
      try {
        if (!(await this.#right(entry, fd))) {
          this.#m.removal.condemn(entry, 'corrupt');
          return false;
        }
        const file = { digest, size_bytes: entry.size_bytes, fd, path };
        const turn = 'in turn';
        const isWanted = (): boolean => index.get(digest) === entry && entry.state === 'cache';
        if (!(await this.#m.publication.place(file, { fresh: false, isWanted, turn })))
          return false;
      } finally {
        await files.close(fd);
      }
      index.setState(entry, 'published');
      entry.kept_until_ms = clock.now_ms() + ARRIVAL_KEEP_MS;
      metrics.restored.inc({}, entry.size_bytes);
      metrics.restore_seconds.observe({}, (clock.now_ms() - began_ms) / 1000);
      return true;
    } catch (error) {
      if (errnoOf(error) !== 'ENOENT') throw error;
      this.#m.removal.condemn(entry, 'missing');
      return false;
    } finally {
      entry.pins -= 1;
    }
  }

  async #right({ digest, size_bytes }: BlobEntry, fd: number): Promise<boolean> {
    const algorithm = algorithmOf(digest);
    const hash = createHasher(algorithm);
    const slice = Buffer.allocUnsafeSlow(Math.min(HASH_SLICE_BYTES, Math.max(1, size_bytes)));
    let at = 0;
    for (;;) {
      const bytes = await readInto(this.#m.files, fd, slice, at);
      if (bytes.length === 0) break;
      hash.update(bytes);
      at += bytes.length;
      if (at > size_bytes) return false;
      await breathe();
    }
    return at === size_bytes && runningDigest(algorithm, hash) === digest;
  }

  /**
   * The first version kept cache blobs under `blobs/` and marked them. Its marks count only when that version closed in order and
   * containerd's metadata has not changed since; then the blobs move here. Otherwise every blob counts as owned, and containerd's
   * next garbage collection deletes what it does not know.
   */
  takeMarked(config: { state_directory: string; metadata_file: string }): void {
    const { layout, index, logger } = this.#m;
    const proof = join(config.state_directory, 'closed');
    const marked = layout.marks.digests();
    const trusted = readText(proof) === metadataIdentity(config.metadata_file);
    for (const digest of marked) {
      const entry = index.get(digest);
      if (trusted && entry?.state === 'owned') this.take(entry);
      layout.marks.remove(digest);
    }
    fs.rmSync(proof, { force: true });
    if (marked.length > 0) logger.info({ blobs: marked.length, trusted }, 'cache marks taken over');
  }
}

function readText(path: string): string | undefined {
  try {
    return fs.readFileSync(path, 'utf8');
  } catch {
    return undefined; // no proof
  }
}

function metadataIdentity(path: string): string {
  const found = fs.statSync(path, { bigint: true, throwIfNoEntry: false });
  return found === undefined ? 'absent' : `${found.ino} ${found.size} ${found.mtimeNs}`;
}
