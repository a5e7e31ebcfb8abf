import { DaemonError } from '../../base/errors.ts';
import type { DigestAlgorithm } from '../../oci/digest.ts';
import { breathe, type Files, readAt } from '../disk/files.ts';
import { HASH_SLICE_BYTES, PrefixHash } from '../disk/prefix-hash.ts';
import type { StoreMetrics } from '../metrics.ts';

/** What a running hash follows. */
type Growing = {
  readonly ref: string;
  readonly data: string;
  readonly offset_bytes: number;
  readonly gone: boolean;
};

/** The hash of an ingest's bytes so far: carried along by its writers, given up to save memory, made anew from the file at need. */
export class RunningHash {
  readonly #files: Files;
  readonly #metrics: StoreMetrics;
  #hash: PrefixHash | undefined;
  #catching: Promise<void> | undefined;
  #also: DigestAlgorithm = 'sha256';

  constructor(modules: { files: Files; metrics: StoreMetrics }) {
    this.#files = modules.files;
    this.#metrics = modules.metrics;
  }

  /** The hash itself; undefined = given up. */
  get current(): PrefixHash | undefined {
    return this.#hash;
  }

  set current(hash: PrefixHash | undefined) {
    this.#hash = hash;
  }

  /** From the first byte on it shall show the digest in this algorithm too. What was hashed without it is given up. */
  follow(also: DigestAlgorithm): void {
    this.#also = also;
    if (this.#hash?.digestIn(also) === undefined) this.#hash = undefined;
  }

  /** A hash of no bytes, in the algorithms that are followed. */
  fresh(): PrefixHash {
    return new PrefixHash(this.#also);
  }

  /** It covers all bytes, and nothing else works on it. */
  covers(ingest: Growing): boolean {
    return this.#catching === undefined && this.#reaches(ingest);
  }

  /** Reads and hashes until it covers all bytes. `data_loss` when the file is shorter than its offset; `not_found` when the ingest goes away. */
  async catchUp(ingest: Growing): Promise<void> {
    while (!this.covers(ingest)) {
      if (ingest.gone) throw ingestGone(ingest.ref);
      this.#catching ??= this.#rebuild(ingest).finally(() => {
        this.#catching = undefined;
      });
      await this.#catching;
    }
  }

  #reaches({ offset_bytes }: Growing): boolean {
    return (this.#hash?.offset_bytes ?? -1) >= offset_bytes;
  }

  async #rebuild(ingest: Growing): Promise<void> {
    const hash = (this.#hash ??= this.fresh());
    // Another hash means truncated or replaced: what the descriptor shows is history.
    const isCurrent = (): boolean => this.#hash === hash && !ingest.gone;
    const fd = await this.#files.open(ingest.data, 'r');
    try {
      while (isCurrent() && !this.#reaches(ingest)) {
        const at = hash.offset_bytes;
        const length = Math.min(HASH_SLICE_BYTES, ingest.offset_bytes - at);
        const bytes = await readAt(this.#files, fd, length, at);
        if (!isCurrent()) return;
        if (bytes.length === 0) throw tooShort(ingest, at);
        await hash.append(bytes);
        this.#metrics.rebuilt.inc({}, bytes.length);
        await breathe();
      }
    } finally {
      await this.#files.close(fd);
    }
  }
}

/** `not_found` for an ingest that was aborted or committed under its writer. */
export function ingestGone(ref: string): DaemonError {
  return new DaemonError('not_found', `ingest ${ref} was aborted or committed meanwhile`, { ref });
}

function tooShort({ ref, offset_bytes }: Growing, at: number): DaemonError {
  return new DaemonError(
    'data_loss',
    `the data of ingest ${ref} ends after ${at} bytes, ${offset_bytes} were written; abort it and pull again`,
    { ref },
  );
}
