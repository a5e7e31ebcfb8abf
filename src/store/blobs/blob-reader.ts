import { DaemonError } from '../../base/errors.ts';
import type { Digest } from '../../oci/digest.ts';
import type { BlobReader } from '../blob-store.ts';
import { fileError } from '../disk/file-errors.ts';
import { type Files, readAt } from '../disk/files.ts';
import type { OpenFiles } from './open-files.ts';

/** Bytes read at once for a sequential reader: 32 of containerd's reads, which come 32 KiB at a time, one after another. */
export const WINDOW_BYTES = 1024 * 1024;

type Window = { readonly start: number; readonly bytes: Uint8Array };

/** Reader of one blob; all callers of the blob share it. Its window is a fresh buffer each time, so views handed out stay as they are. */
export class LocalReader implements BlobReader {
  readonly digest: Digest;
  readonly size_bytes: number;
  readonly #system: Pick<Files, 'read'>;
  readonly #files: OpenFiles;
  readonly #onRead: (reader: LocalReader) => void;
  #window: Window | undefined;
  #next: Window | undefined;
  #filling: Promise<void> | undefined;
  /** Where the last read ended: a read that starts there is sequential. */
  #end = 0;

  constructor(
    modules: {
      system: Pick<Files, 'read'>;
      files: OpenFiles;
      onRead: (reader: LocalReader) => void;
    },
    blob: { digest: Digest; size_bytes: number },
  ) {
    this.#system = modules.system;
    this.#files = modules.files;
    this.#onRead = modules.onRead;
    this.digest = blob.digest;
    this.size_bytes = blob.size_bytes;
  }

  peek(offset: number, length: number): Uint8Array | undefined {
    const end = Math.min(offset + length, this.size_bytes);
    if (covers(this.#next, offset, end)) {
      this.#window = this.#next;
      this.#next = undefined;
    }
    const window = this.#window;
    if (window === undefined || !covers(window, offset, end)) return undefined;
    this.#end = end;
    this.#readAhead(window, end);
    return window.bytes.subarray(offset - window.start, end - window.start);
  }

  async read(offset: number, length: number): Promise<Uint8Array> {
    if (offset < 0 || offset > this.size_bytes || length < 0) {
      throw new DaemonError('out_of_range', `read past object length ${this.size_bytes} bytes`, {
        digest: this.digest,
        offset,
      });
    }
    if (this.#filling !== undefined && offset === this.#end) await this.#filling;
    const seen = this.peek(offset, length);
    if (seen !== undefined) return seen;
    this.#onRead(this);
    const end = Math.min(offset + length, this.size_bytes);
    const sequential = offset === this.#end && end - offset < WINDOW_BYTES;
    this.#end = end;
    if (!sequential) return this.#load(offset, end - offset);
    const bytes = await this.#load(offset, Math.min(WINDOW_BYTES, this.size_bytes - offset));
    const window = { start: offset, bytes };
    this.#window = window;
    this.#next = undefined;
    return bytes.subarray(0, end - offset);
  }

  /** Gives the window's memory back. */
  forgetWindow(): void {
    this.#window = undefined;
    this.#next = undefined;
  }

  /** From the middle of a window on, the one behind it is fetched. A failure shows at the read that needs the bytes. */
  #readAhead(window: Window, position: number): void {
    const start = window.start + window.bytes.length;
    const early = position - window.start < window.bytes.length / 2;
    if (early || start >= this.size_bytes || this.#filling !== undefined) return;
    if (this.#next?.start === start) return;
    this.#onRead(this);
    this.#filling = this.#load(start, Math.min(WINDOW_BYTES, this.size_bytes - start))
      .then((bytes) => {
        if (this.#window === window) this.#next = { start, bytes };
      })
      .catch(() => undefined)
      .finally(() => {
        this.#filling = undefined;
      });
  }

  async #load(offset: number, length: number): Promise<Uint8Array> {
    if (length === 0) return new Uint8Array(0);
    const bytes = await this.#files
      .use(this.digest, (fd) => readAt(this.#system, fd, length, offset))
      .catch((error: unknown) => {
        throw fileError(error, 'read', this.digest);
      });
    if (bytes.length === length) return bytes;
    throw new DaemonError(
      'data_loss',
      `the file of blob ${this.digest} ends after ${offset + bytes.length} bytes, recorded were ${this.size_bytes}; something outside truncated it`,
      { digest: this.digest, size_bytes: this.size_bytes },
    );
  }
}

function covers(window: Window | undefined, start: number, end: number): window is Window {
  return window !== undefined && start >= window.start && end <= window.start + window.bytes.length;
}
