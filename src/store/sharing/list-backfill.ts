import type { Clock } from '../../base/clock.ts';
import { hasCode } from '../../base/errors.ts';
import { algorithmOf, createHasher, type Digest, runningDigest } from '../../oci/digest.ts';
import type { Logger } from '../../ops/logger.ts';
import type { BlobEntry, BlobIndex } from '../blobs/blob-index.ts';
import type { BlobReaders } from '../blobs/blob-readers.ts';
import type { BlobRemoval } from '../blobs/blob-removal.ts';
import { breathe, type Files, readAt } from '../disk/files.ts';
import type { StoreMetrics } from '../metrics.ts';
import type { PieceLists } from '../blobs/piece-lists.ts';
import { HASH_SLICE_BYTES, PrefixHash } from '../disk/prefix-hash.ts';

type Modules = {
  readonly index: BlobIndex;
  readonly lists: PieceLists;
  readonly readers: BlobReaders;
  readonly files: Pick<Files, 'read'>;
  readonly removal: BlobRemoval;
  readonly metrics: StoreMetrics;
  readonly clock: Clock;
  readonly logger: Logger;
};

/** Finds or computes the piece lists of blobs that came without one: one blob at a time, in the background. */
export class ListBackfill {
  readonly #m: Modules;
  readonly #bytes_per_second: number;
  readonly #queue = new Set<Digest>();
  #wake: () => void = () => undefined;
  #idle: PromiseWithResolvers<undefined> = Promise.withResolvers();

  constructor(modules: Modules, config: { backfill_bytes_per_second: number }) {
    this.#m = modules;
    this.#bytes_per_second = config.backfill_bytes_per_second;
    this.#idle.resolve(undefined);
  }

  /** Resolves when no blob is waiting for its list. */
  async idle(): Promise<void> {
    await this.#idle.promise;
  }

  /** At most one place per blob. */
  enqueue(digest: Digest): void {
    if (this.#queue.size === 0) this.#idle = Promise.withResolvers();
    this.#queue.add(digest);
    this.#wake();
  }

  /** Works until the signal fires; then rejects with its reason. */
  async run(signal: AbortSignal): Promise<void> {
    const stop = (): void => this.#wake();
    signal.addEventListener('abort', stop);
    try {
      for (;;) {
        const { value: digest } = this.#queue.values().next();
        if (digest !== undefined) {
          await this.#supply(digest, signal);
          this.#queue.delete(digest);
        } else {
          this.#idle.resolve(undefined);
          await new Promise<void>((resolve) => {
            this.#wake = resolve;
            if (signal.aborted) resolve();
          });
        }
        signal.throwIfAborted();
      }
    } finally {
      signal.removeEventListener('abort', stop);
    }
  }

  async #supply(digest: Digest, signal: AbortSignal): Promise<void> {
    const { index, lists, logger } = this.#m;
    const entry = index.get(digest);
    if (entry === undefined || entry.listed) return;
    try {
      if ((await lists.load(entry)) === undefined) await this.#compute(entry, signal);
      if (index.get(digest) === entry && (await lists.load(entry)) !== undefined) {
        index.setListed(entry, true);
      }
    } catch (err) {
      if (signal.aborted) throw err;
      if (hasCode(err, 'not_found')) this.#m.removal.condemn(entry, 'missing');
      else logger.warn({ err, digest }, 'piece list not computed; the blob stays unshared');
    }
  }

  async #compute(entry: BlobEntry, signal: AbortSignal): Promise<void> {
    const { readers, removal, lists, metrics, index } = this.#m;
    const { digest, size_bytes } = entry;
    const prefix = new PrefixHash();
    const algorithm = algorithmOf(digest);
    const other = algorithm === 'sha256' ? undefined : createHasher(algorithm);
    while (prefix.offset_bytes < size_bytes && index.get(digest) === entry) {
      const length = Math.min(HASH_SLICE_BYTES, size_bytes - prefix.offset_bytes);
      const began_ms = this.#m.clock.now_ms();
      const bytes = await readers.files.use(digest, (fd) =>
        readAt(this.#m.files, fd, length, prefix.offset_bytes),
      );
      if (bytes.length === 0) break;
      await prefix.append(bytes);
      other?.update(bytes);
      metrics.backfilled.inc({}, bytes.length);
      await this.#pace(bytes.length, began_ms, signal);
    }
    if (index.get(digest) !== entry) return;
    const found = other === undefined ? prefix.digest() : runningDigest(algorithm, other);
    if (found !== digest) {
      removal.condemn(entry, 'corrupt');
      return;
    }
    const list = { digest, size_bytes, digests: prefix.pieceDigests() ?? new Uint8Array(0) };
    lists.remember(list);
    await lists.save(list);
  }

  async #pace(bytes: number, began_ms: number, signal: AbortSignal): Promise<void> {
    await breathe();
    signal.throwIfAborted();
    if (this.#bytes_per_second === 0) return;
    const due_ms = (bytes / this.#bytes_per_second) * 1000;
    const ahead_ms = due_ms - (this.#m.clock.now_ms() - began_ms);
    if (ahead_ms > 0) await this.#m.clock.sleep(ahead_ms, { signal });
  }
}
