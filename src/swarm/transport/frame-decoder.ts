/** Where the body of a frame goes. */
export type FrameBody = {
  readonly length: number;
  /** Exactly `length` bytes, allocated by who knows the limit; undefined = the body is thrown away as it arrives. */
  readonly target?: Uint8Array | undefined;
  /** Called at most once per push, with the bytes of the body so far, and always with the last of them before `done`. */
  readonly onProgress?: ((received_bytes: number) => void) | undefined;
  /** Called once the whole body is there (at once for an empty one). */
  readonly done: () => void;
};

/**
 * Cuts a byte stream into frames of a fixed header and a raw body, copying each body straight to its place. It keeps
 * nothing but one header, so a sender cannot make it hold memory. Whatever `onHeader` or `done` throws ends it.
 */
export class FrameDecoder {
  readonly #header: Uint8Array;
  readonly #onHeader: (header: Uint8Array) => FrameBody;
  #headerFill = 0;
  #body: FrameBody | undefined;
  #bodyFill = 0;
  #told = 0;

  /** `header_bytes` is the fixed header's length; the header given to `onHeader` is lent for the call. */
  constructor(header_bytes: number, onHeader: (header: Uint8Array) => FrameBody) {
    this.#header = new Uint8Array(header_bytes);
    this.#onHeader = onHeader;
  }

  /** True between two frames: an end of the stream here cuts nothing off. */
  get idle(): boolean {
    return this.#headerFill === 0 && this.#body === undefined;
  }

  /** Takes what came in at once, in one part or several. */
  push(parts: Uint8Array | Iterable<Uint8Array>): void {
    for (const chunk of parts instanceof Uint8Array ? [parts] : parts) {
      let at = 0;
      while (at < chunk.length) {
        at += this.#body === undefined ? this.#fillHeader(chunk, at) : this.#fillBody(chunk, at);
      }
    }
    this.#tell();
  }

  /** A TLS record is 16 KiB: told of each, who counts bytes would do it 256 times a piece. */
  #tell(): void {
    if (this.#body === undefined || this.#told === this.#bodyFill) return;
    this.#told = this.#bodyFill;
    this.#body.onProgress?.(this.#bodyFill);
  }

  #fillHeader(chunk: Uint8Array, at: number): number {
    const n = Math.min(this.#header.length - this.#headerFill, chunk.length - at);
    this.#header.set(chunk.subarray(at, at + n), this.#headerFill);
    this.#headerFill += n;
    if (this.#headerFill === this.#header.length) {
      this.#headerFill = 0;
      this.#bodyFill = 0;
      this.#told = 0;
      const body = this.#onHeader(this.#header);
      if (body.length === 0) body.done();
      else this.#body = body;
    }
    return n;
  }

  #fillBody(chunk: Uint8Array, at: number): number {
    const body = this.#body!;
    const n = Math.min(body.length - this.#bodyFill, chunk.length - at);
    body.target?.set(chunk.subarray(at, at + n), this.#bodyFill);
    this.#bodyFill += n;
    if (this.#bodyFill === body.length) {
      this.#tell();
      this.#body = undefined;
      body.done();
    }
    return n;
  }
}
