import { DaemonError, errnoOf } from '../../base/errors.ts';
import type { Digest } from '../../oci/digest.ts';
import { closeFile, openFile } from '../disk/descriptor.ts';
import { fileError } from '../disk/file-errors.ts';

/** An open blob file. It is closed when nobody reads from it and the cache no longer holds it. */
export class OpenFile {
  readonly #fd: number;
  #users = 0;
  #retired = false;

  constructor(fd: number) {
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
      if (this.closed) await closeFile(this.#fd);
    }
  }

  /** No new reader will come: closes now, or after the last one. */
  async retire(): Promise<void> {
    if (this.#retired) return;
    this.#retired = true;
    if (this.closed) await closeFile(this.#fd);
  }
}

/** Blob files kept open, the latest used ones up to a bound. */
export class OpenFiles {
  readonly #pathOf: (digest: Digest) => string;
  readonly #max: number;
  readonly #files = new Map<Digest, OpenFile>();
  readonly #opening = new Map<Digest, Promise<OpenFile>>();

  constructor(modules: { pathOf: (digest: Digest) => string }, config: { open_files_max: number }) {
    this.#pathOf = modules.pathOf;
    this.#max = config.open_files_max;
  }

  /** The open file, if it is open. */
  held(digest: Digest): OpenFile | undefined {
    const file = this.#files.get(digest);
    if (file !== undefined) {
      this.#files.delete(digest);
      this.#files.set(digest, file);
    }
    return file;
  }

  /** Opens it once for all who ask at a time. `not_found`, `resource_exhausted`, `permission_denied`. */
  async get(digest: Digest): Promise<OpenFile> {
    const held = this.held(digest);
    if (held !== undefined) return held;
    const opening = this.#opening.get(digest) ?? this.#open(digest);
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
    const file = this.#files.get(digest);
    this.#files.delete(digest);
    await file?.retire();
    // What is just being opened belongs to the old blob too; without its place in `#opening` it is not kept.
    const late = await opening?.catch(() => undefined);
    await late?.retire();
  }

  async closeAll(): Promise<void> {
    const digests = new Set([...this.#files.keys(), ...this.#opening.keys()]);
    await Promise.all([...digests].map((digest) => this.drop(digest)));
  }

  async #open(digest: Digest): Promise<OpenFile> {
    const path = this.#pathOf(digest);
    try {
      const file = new OpenFile(await openFile(path, 'r'));
      if (this.#opening.delete(digest)) this.#files.set(digest, file);
      for (const oldest of this.#files.keys()) {
        if (this.#files.size <= this.#max) break;
        const evicted = this.#files.get(oldest);
        this.#files.delete(oldest);
        await evicted?.retire();
      }
      return file;
    } catch (error) {
      this.#opening.delete(digest);
      if (errnoOf(error) !== 'ENOENT') throw fileError(error, 'read', path);
      throw new DaemonError('not_found', `blob ${digest} is not in the store`, { digest });
    }
  }
}
