import type { Digest } from '../../oci/digest.ts';
import type { Files } from '../disk/files.ts';
import type { BlobEntry } from './blob-index.ts';
import { LocalReader } from './blob-reader.ts';
import { OpenFiles } from './open-files.ts';

/** Readers that may hold read-ahead windows at a time: with two windows each, 32 MiB. */
const WINDOWS_MAX = 16;

/** The readers of the blobs in use, one per blob, and the files behind them. */
export class BlobReaders {
  readonly files: OpenFiles;
  readonly #max: number;
  readonly #readers = new Map<Digest, LocalReader>();
  /** Readers with windows, the longest unused first. */
  readonly #windowed = new Set<LocalReader>();

  readonly #system: Files;

  constructor(
    modules: { files: Files; pathsOf: (digest: Digest) => readonly string[] },
    config: { open_files_max: number },
  ) {
    this.#system = modules.files;
    this.files = new OpenFiles(modules, config);
    this.#max = config.open_files_max;
  }

  /** The reader, if the file is open. Memory. */
  held(entry: BlobEntry): LocalReader | undefined {
    return this.files.held(entry.digest) === undefined ? undefined : this.#reader(entry);
  }

  /** The reader, with its file open. */
  async open(entry: BlobEntry): Promise<LocalReader> {
    await this.files.get(entry.digest);
    return this.#reader(entry);
  }

  async drop(digest: Digest): Promise<void> {
    this.#remove(digest);
    await this.files.drop(digest);
  }

  async closeAll(): Promise<void> {
    for (const digest of [...this.#readers.keys()]) this.#remove(digest);
    await this.files.closeAll();
  }

  #reader(entry: BlobEntry): LocalReader {
    const { digest } = entry;
    const onRead = (used: LocalReader): void => this.#used(used);
    const reader =
      this.#readers.get(digest) ??
      new LocalReader({ system: this.#system, files: this.files, onRead }, entry);
    this.#readers.delete(digest);
    this.#readers.set(digest, reader);
    for (const oldest of this.#readers.keys()) {
      if (this.#readers.size <= this.#max) break;
      this.#remove(oldest);
    }
    return reader;
  }

  #used(reader: LocalReader): void {
    this.#windowed.delete(reader);
    this.#windowed.add(reader);
    for (const oldest of this.#windowed) {
      if (this.#windowed.size <= WINDOWS_MAX) break;
      this.#windowed.delete(oldest);
      oldest.forgetWindow();
    }
  }

  #remove(digest: Digest): void {
    const reader = this.#readers.get(digest);
    if (reader === undefined) return;
    this.#readers.delete(digest);
    this.#windowed.delete(reader);
    reader.forgetWindow();
  }
}
