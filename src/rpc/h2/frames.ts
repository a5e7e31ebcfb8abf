/** HTTP/2 framing (RFC 9113, sections 4, 6 and 7): pure codecs, no input or output. */

export const FRAME = {
  data: 0,
  headers: 1,
  priority: 2,
  rst_stream: 3,
  settings: 4,
  push_promise: 5,
  ping: 6,
  goaway: 7,
  window_update: 8,
  continuation: 9,
} as const;

export const FLAG = {
  end_stream: 0x1,
  ack: 0x1,
  end_headers: 0x4,
  padded: 0x8,
  priority: 0x20,
} as const;

/** Error codes that we send in RST_STREAM and GOAWAY. */
export const H2_CODE = {
  no_error: 0,
  protocol_error: 1,
  internal_error: 2,
  flow_control_error: 3,
  stream_closed: 5,
  frame_size_error: 6,
  refused_stream: 7,
  cancel: 8,
  compression_error: 9,
  enhance_your_calm: 11,
} as const;

export type H2Code = (typeof H2_CODE)[keyof typeof H2_CODE];

/** The other side broke the protocol: the connection ends with GOAWAY of this code. The message is fixed text of ours. */
export class ConnectionError extends Error {
  override readonly name = 'ConnectionError';
  readonly code: H2Code;

  constructor(code: H2Code, message: string) {
    super(message);
    this.code = code;
  }
}

export const FRAME_HEADER_BYTES = 9;

/** The frame payload size every side must take (RFC 9113, 4.2); ours is never raised. */
export const DEFAULT_MAX_FRAME = 16_384;

/** The greatest flow-control window (RFC 9113, 6.9.1). */
export const MAX_WINDOW = 0x7fff_ffff;

/** What a client sends before its first frame. */
export const PREFACE = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 'latin1');

/** Takes the frames of a FrameReader. */
export interface FrameSink {
  /** One whole frame; its payload is `bytes[start, end)`. The bytes are not reused afterwards. False stops the reader. */
  frame(
    type: number,
    flags: number,
    stream: number,
    bytes: Buffer,
    start: number,
    end: number,
  ): boolean;
}

/**
 * Cuts a byte stream into frames. A frame that lies within one chunk is handed on without copying; one that straddles
 * chunks is copied once, into a buffer of its size, which is checked against the limit first.
 */
export class FrameReader {
  readonly #maxPayload: number;
  /** The start of an unfinished frame: up to 9 header bytes, or a buffer of the frame's whole size. */
  #partial: Buffer | undefined;
  #have = 0;

  constructor(config: { readonly maxPayload_bytes: number }) {
    this.#maxPayload = config.maxPayload_bytes;
  }

  /** @throws ConnectionError `frame_size_error` for a frame beyond the limit, and whatever `sink` throws. */
  push(chunk: Buffer, sink: FrameSink): void {
    let pos = 0;
    while (this.#partial !== undefined) {
      const needed = this.#needed(this.#partial);
      const take = Math.min(needed - this.#have, chunk.length - pos);
      if (this.#partial.length < needed) this.#partial = grown(this.#partial, needed);
      chunk.copy(this.#partial, this.#have, pos, pos + take);
      this.#have += take;
      pos += take;
      if (this.#have < FRAME_HEADER_BYTES) return;
      const whole = this.#needed(this.#partial);
      if (this.#have < whole) {
        if (pos === chunk.length) return;
        continue;
      }
      const frame = this.#partial;
      this.#partial = undefined;
      if (!emit(frame, 0, whole, sink)) return;
    }
    while (chunk.length - pos >= FRAME_HEADER_BYTES) {
      const end = pos + this.#size(chunk, pos);
      if (end > chunk.length) break;
      if (!emit(chunk, pos, end, sink)) return;
      pos = end;
    }
    if (pos < chunk.length) {
      this.#have = chunk.length - pos;
      this.#partial = Buffer.allocUnsafe(
        this.#have < FRAME_HEADER_BYTES ? FRAME_HEADER_BYTES : this.#size(chunk, pos),
      );
      chunk.copy(this.#partial, 0, pos);
    }
  }

  #needed(partial: Buffer): number {
    return this.#have < FRAME_HEADER_BYTES ? FRAME_HEADER_BYTES : this.#size(partial, 0);
  }

  #size(bytes: Buffer, pos: number): number {
    const payload = readUint24(bytes, pos);
    if (payload > this.#maxPayload) {
      throw new ConnectionError(
        H2_CODE.frame_size_error,
        'frame larger than SETTINGS_MAX_FRAME_SIZE',
      );
    }
    return FRAME_HEADER_BYTES + payload;
  }
}

function grown(bytes: Buffer, size: number): Buffer {
  const larger = Buffer.allocUnsafe(size);
  bytes.copy(larger);
  return larger;
}

function emit(bytes: Buffer, pos: number, end: number, sink: FrameSink): boolean {
  return sink.frame(
    bytes[pos + 3]!,
    bytes[pos + 4]!,
    readUint32(bytes, pos + 5) & MAX_WINDOW,
    bytes,
    pos + FRAME_HEADER_BYTES,
    end,
  );
}

function readUint24(bytes: Uint8Array, pos: number): number {
  return (bytes[pos]! << 16) | (bytes[pos + 1]! << 8) | bytes[pos + 2]!;
}

export function readUint32(bytes: Uint8Array, pos: number): number {
  return (
    ((bytes[pos]! << 24) | (bytes[pos + 1]! << 16) | (bytes[pos + 2]! << 8) | bytes[pos + 3]!) >>> 0
  );
}

export function writeUint32(bytes: Uint8Array, pos: number, value: number): void {
  bytes[pos] = value >>> 24;
  bytes[pos + 1] = value >>> 16;
  bytes[pos + 2] = value >>> 8;
  bytes[pos + 3] = value;
}

/** Writes the nine bytes in front of a payload of `length`, and returns the position behind them. */
export function writeFrameHeader(
  bytes: Uint8Array,
  pos: number,
  length: number,
  type: number,
  flags: number,
  stream: number,
): number {
  bytes[pos] = length >>> 16;
  bytes[pos + 1] = length >>> 8;
  bytes[pos + 2] = length;
  bytes[pos + 3] = type;
  bytes[pos + 4] = flags;
  writeUint32(bytes, pos + 5, stream);
  return pos + FRAME_HEADER_BYTES;
}

/** One whole frame in a buffer of its own. */
export function encodeFrame(
  type: number,
  flags: number,
  stream: number,
  payload: Uint8Array = new Uint8Array(0),
): Buffer {
  const frame = Buffer.allocUnsafe(FRAME_HEADER_BYTES + payload.length);
  frame.set(payload, writeFrameHeader(frame, 0, payload.length, type, flags, stream));
  return frame;
}

/** Where the content of a padded frame lies. @throws ConnectionError when the padding is longer than the frame. */
export function unpad(
  flags: number,
  bytes: Uint8Array,
  start: number,
  end: number,
): readonly [start: number, end: number] {
  if ((flags & FLAG.padded) === 0) return [start, end];
  const padding = start < end ? bytes[start]! : 0;
  if (start + 1 + padding > end) {
    throw new ConnectionError(H2_CODE.protocol_error, 'padding longer than its frame');
  }
  return [start + 1, end - padding];
}

/** What we read of the other side's SETTINGS; undefined = not in this frame. */
export type PeerSettings = {
  readonly initialWindow: number | undefined;
  readonly maxFrame: number | undefined;
};

/** Reads a SETTINGS payload (RFC 9113, 6.5). @throws ConnectionError for values the RFC forbids. */
export function readSettings(bytes: Uint8Array, start: number, end: number): PeerSettings {
  if ((end - start) % 6 !== 0) {
    throw new ConnectionError(H2_CODE.frame_size_error, 'SETTINGS of odd length');
  }
  let initialWindow: number | undefined;
  let maxFrame: number | undefined;
  for (let pos = start; pos < end; pos += 6) {
    const id = (bytes[pos]! << 8) | bytes[pos + 1]!;
    const value = readUint32(bytes, pos + 2);
    if (id === 2 && value > 1) {
      throw new ConnectionError(H2_CODE.protocol_error, 'SETTINGS_ENABLE_PUSH is neither 0 nor 1');
    } else if (id === 4) {
      if (value > MAX_WINDOW) {
        throw new ConnectionError(
          H2_CODE.flow_control_error,
          'SETTINGS_INITIAL_WINDOW_SIZE too large',
        );
      }
      initialWindow = value;
    } else if (id === 5) {
      if (value < DEFAULT_MAX_FRAME || value > 0xff_ffff) {
        throw new ConnectionError(H2_CODE.protocol_error, 'SETTINGS_MAX_FRAME_SIZE out of range');
      }
      maxFrame = value;
    }
  }
  return { initialWindow, maxFrame };
}

/** A SETTINGS payload of these (identifier, value) pairs. */
export function settingsPayload(
  settings: readonly (readonly [id: number, value: number])[],
): Buffer {
  const payload = Buffer.alloc(settings.length * 6);
  for (const [i, [id, value]] of settings.entries()) {
    payload.writeUInt16BE(id, i * 6);
    payload.writeUInt32BE(value, i * 6 + 2);
  }
  return payload;
}
