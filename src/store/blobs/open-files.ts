import { DaemonError, errnoOf } from '../../base/errors.ts';
import type { Digest } from '../../oci/digest.ts';
import { fileError } from '../disk/file-errors.ts';
import type { Files } from '../disk/files.ts';

/** An open blob file. It is closed when nobody reads from it and the cache no longer holds it. */
export class OpenFile {
  readonly #files: Pick<Files, 'close'>;
  readonly #fd: number;
  #users = 0;
  #retired = false;

  constructor(files: Pick<Files, 'close'>, fd: number) {
    this.#files = files;
    this.#fd = fd;
  }

  /** The descriptor is given back: whoever got this object meanwhile must open anew. */
  get closed(): boolean {
    return this.#retired && this.#users === 0;
  }

  /** Runs `read` with the file kept open. Not to be called when `closed`. */
  async use<T>(read: (fd: number) => Promise<T>): Promise<T> {
    this.#users += 1;
    try {
      return await read(this.#fd);
    } finally {
      this.#users -= 1;
      if (this.closed) await this.#files.close(this.#fd);
    }
  }

  /** No new reader will come: closes now, or after the last one. */
  async retire(): Promise<void> {
    if (this.#retired) return;
    this.#retired = true;
    if (this.closed) await this.#files.close(this.#fd);
  }
}

/** Blob files kept open, the latest used ones up to a bound. */
export class OpenFiles {
  readonly #files: Pick<Files, 'open' | 'close'>;
  readonly #pathsOf: (digest: Digest) => readonly string[];
  readonly #max: number;
  readonly #open = new Map<Digest, OpenFile>();
  readonly #opening = new Map<Digest, Promise<OpenFile>>();

  constructor(
    modules: {
      files: Pick<Files, 'open' | 'close'>;
      /** Where the blob's file may lie; the likeliest first, because it may be on its way from one to the other. */
      pathsOf: (digest: Digest) => readonly string[];
    },
    config: { open_files_max: number },
  ) {
    this.#files = modules.files;
    this.#pathsOf = modules.pathsOf;
    this.#max = config.open_files_max;
  }

  /** The open file, if it is open. */
  held(digest: Digest): OpenFile | undefined {
    const file = this.#open.get(digest);
    if (file !== undefined) {
      this.#open.delete(digest);
      this.#open.set(digest, file);
    }
    return file;
  }

  /** Opens it once for all who ask at a time. `not_found`, `resource_exhausted`, `permission_denied`. */
  async get(digest: Digest): Promise<OpenFile> {
    const held = this.held(digest);
    if (held !== undefined) return held;
    const opening = this.#opening.get(digest) ?? this.#opened(digest);
    this.#opening.set(digest, opening);
    return await opening;
  }

  /** Runs `read` on the blob's file, open for as long as that takes. Errors as `get`. */
  async use<T>(digest: Digest, read: (fd: number) => Promise<T>): Promise<T> {
    // Without a pause in between: whoever removes the blob now waits for this read.
    const held = this.held(digest);
    if (held !== undefined) return await held.use(read);
    // It may be pushed out between opening and use, but hardly often in a row.
    for (let attempt = 0; attempt < 8; attempt++) {
      const file = await this.get(digest);
      if (!file.closed) return await file.use(read);
    }
    throw new DaemonError(
      'resource_exhausted',
      `blob ${digest} cannot be kept open: more blobs are read at once than open_files_max allows; raise it`,
      { digest },
    );
  }

  /** The blob goes away: its file closes after the reads that are under way. */
  async drop(digest: Digest): Promise<void> {
    const opening = this.#opening.get(digest);
    this.#opening.delete(digest);
    const file = this.#open.get(digest);
    this.#open.delete(digest);
    await file?.retire();
    // What is just being opened belongs to the old blob too; without its place in `#opening` it is not kept.
    const late = await opening?.catch(() => undefined);
    await late?.retire();
  }

  async closeAll(): Promise<void> {
    const digests = new Set([...this.#open.keys(), ...this.#opening.keys()]);
    await Promise.all([...digests].map((digest) => this.drop(digest)));
  }

  #opened(digest: Digest): Promise<OpenFile> {
    const opening: Promise<OpenFile> = this.#find(digest)
      .then(async (fd) => {
        const file = new OpenFile(this.#files, fd);
        // Only the opening that is still the current one may keep its file: a later one is of another blob of the same digest.
        if (this.#opening.get(digest) === opening) this.#open.set(digest, file);
        await this.#trim();
        return file;
      })
      .finally(() => {
        if (this.#opening.get(digest) === opening) this.#opening.delete(digest);
      });
    return opening;
  }

  async #trim(): Promise<void> {
    for (const [digest, oldest] of this.#open) {
      if (this.#open.size <= this.#max) break;
      this.#open.delete(digest);
      await oldest.retire();
    }
  }

  async #find(digest: Digest): Promise<number> {
    for (const path of this.#pathsOf(digest)) {
      try {
        return await this.#files.open(path, 'r');
      } catch (error) {
        if (errnoOf(error) !== 'ENOENT') throw fileError(error, 'read', path);
      }
    }
    throw new DaemonError('not_found', `blob ${digest} is not in the store`, { digest });
  }
}
