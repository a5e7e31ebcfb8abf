import type { Socket } from 'node:net';
import type { MessageParts } from '../service.ts';
import {
  ConnectionError,
  encodeFrame,
  FLAG,
  FRAME,
  FRAME_HEADER_BYTES,
  H2_CODE,
  type H2Code,
  writeFrameHeader,
  writeUint32,
} from './frames.ts';
import { encodeLiteral } from './hpack.ts';

/** First and usual size of the buffer that frames are gathered in: one containerd Read's answer fits, and acks beside it. */
const GATHER_BYTES = 65_536;
/** A buffer that grew beyond this for one answer is not kept. */
const KEEP_BYTES = 1_048_576;
/** Unsent bytes at which a connection that is not read by its client is given up: acks and small answers are all that comes here. */
const MAX_UNSENT_BYTES = 4_194_304;
/** gRPC's prefix of a message: a compression flag and a length. */
export const PREFIX_BYTES = 5;

/** The header block before every answer that has a message. */
const RESPONSE_BLOCK = encodeLiteral([
  [':status', '200'],
  ['content-type', 'application/grpc'],
]);
const RESPONSE_HEAD = encodeFrame(FRAME.headers, FLAG.end_headers, 0, RESPONSE_BLOCK);
const OK_TRAILERS = encodeFrame(
  FRAME.headers,
  FLAG.end_headers | FLAG.end_stream,
  0,
  encodeLiteral([['grpc-status', '0']]),
);

/**
 * The way out of one connection. Frames gather in one buffer and leave in one write at `flush`, so acks ride along with
 * answers. When the kernel takes all of a write at once (the usual case) the buffer is used again; otherwise it is left
 * to the socket.
 */
export class Outbox {
  readonly #socket: Socket;
  #buffer: Buffer = Buffer.alloc(0);
  #pos = 0;
  #blocked = false;

  constructor(socket: Socket) {
    this.#socket = socket;
  }

  /** The client does not read: send no DATA until the socket says 'drain' (then call `unblock`). */
  get blocked(): boolean {
    return this.#blocked;
  }

  unblock(): void {
    this.#blocked = false;
  }

  /** Writes what has gathered. @throws ConnectionError when the client has left too much of it unread */
  flush(): void {
    if (this.#pos === 0) return;
    const socket = this.#socket;
    const bytes = this.#buffer.subarray(0, this.#pos);
    this.#pos = 0;
    if (socket.writableLength > MAX_UNSENT_BYTES) {
      throw new ConnectionError(H2_CODE.enhance_your_calm, 'client does not read what it asks for');
    }
    if (socket.writableLength > 0) {
      // The socket keeps what it is given: small things get a buffer of their size, not 64 KiB each.
      if (bytes.length < GATHER_BYTES / 4) socket.write(Buffer.from(bytes));
      else this.#give(bytes);
    } else {
      this.#give(bytes);
    }
    if (socket.writableLength > 0 && socket.writableNeedDrain) this.#blocked = true;
    if (this.#buffer.length > KEEP_BYTES) this.#buffer = Buffer.alloc(0);
  }

  #give(bytes: Buffer): void {
    this.#socket.write(bytes);
    // Not all taken by the kernel: these bytes must stay as they are.
    if (this.#socket.writableLength > 0) this.#buffer = Buffer.alloc(0);
  }

  /**
   * One whole answer: headers, the messages, each in DATA frames of its own, OK trailers. The caller has checked the
   * flow-control windows for `framed` bytes (the messages with their prefixes). The parts are copied here.
   */
  answer(
    stream: number,
    messages: readonly MessageParts[],
    framed: number,
    maxFrame: number,
  ): void {
    const frames = Math.ceil(framed / maxFrame) + messages.length;
    this.#reserve(RESPONSE_HEAD.length + frames * FRAME_HEADER_BYTES + framed + OK_TRAILERS.length);
    let pos = this.#copyFrame(RESPONSE_HEAD, stream, this.#pos);
    for (const parts of messages) pos = this.#message(stream, parts, pos, maxFrame);
    this.#pos = this.#copyFrame(OK_TRAILERS, stream, pos);
  }

  #message(stream: number, parts: MessageParts, start: number, maxFrame: number): number {
    const buffer = this.#buffer;
    const total = byteLength(parts);
    let left = total + PREFIX_BYTES;
    let room = Math.min(left, maxFrame);
    let pos = writeFrameHeader(buffer, start, room, FRAME.data, 0, stream);
    pos = writePrefix(buffer, pos, total);
    left -= room;
    room -= PREFIX_BYTES;
    for (const part of parts) {
      let from = 0;
      while (from < part.length) {
        if (room === 0) {
          room = Math.min(left, maxFrame);
          left -= room;
          pos = writeFrameHeader(buffer, pos, room, FRAME.data, 0, stream);
        }
        const count = Math.min(room, part.length - from);
        buffer.set(count === part.length ? part : part.subarray(from, from + count), pos);
        pos += count;
        from += count;
        room -= count;
      }
    }
    return pos;
  }

  /** The headers before the first message of an answer. */
  responseHead(stream: number): void {
    this.#reserve(RESPONSE_HEAD.length);
    this.#pos = this.#copyFrame(RESPONSE_HEAD, stream, this.#pos);
  }

  /** One DATA frame: `count` bytes of the gRPC frame (prefix and message) from its byte `from`. */
  data(stream: number, message: Uint8Array, from: number, count: number): void {
    this.#reserve(FRAME_HEADER_BYTES + PREFIX_BYTES + count);
    const end = from + count;
    let pos = writeFrameHeader(this.#buffer, this.#pos, count, FRAME.data, 0, stream);
    let start = from;
    for (; start < PREFIX_BYTES && start < end; start++) {
      this.#buffer[pos++] = start === 0 ? 0 : message.length >>> (8 * (PREFIX_BYTES - 1 - start));
    }
    if (start < end) {
      this.#buffer.set(message.subarray(start - PREFIX_BYTES, end - PREFIX_BYTES), pos);
      pos += end - start;
    }
    this.#pos = pos;
  }

  /** Trailers, or headers and status in one where nothing was sent before: `block` says which. */
  end(stream: number, block: Uint8Array): void {
    this.#frame(FRAME.headers, FLAG.end_headers | FLAG.end_stream, stream, block);
  }

  okTrailers(stream: number): void {
    this.#reserve(OK_TRAILERS.length);
    this.#pos = this.#copyFrame(OK_TRAILERS, stream, this.#pos);
  }

  settingsAck(): void {
    this.#frame(FRAME.settings, FLAG.ack, 0);
  }

  ping(payload: Uint8Array): void {
    this.#frame(FRAME.ping, 0, 0, payload);
  }

  pingAck(payload: Uint8Array): void {
    this.#frame(FRAME.ping, FLAG.ack, 0, payload);
  }

  windowUpdate(stream: number, increment: number): void {
    this.#number(FRAME.window_update, stream, increment);
  }

  reset(stream: number, code: H2Code): void {
    this.#number(FRAME.rst_stream, stream, code);
  }

  goaway(lastStream: number, code: H2Code, reason: string): void {
    const payload = Buffer.alloc(8 + reason.length);
    payload.writeUInt32BE(lastStream, 0);
    payload.writeUInt32BE(code, 4);
    payload.write(reason, 8, 'latin1');
    this.#frame(FRAME.goaway, 0, 0, payload);
  }

  #number(type: number, stream: number, value: number): void {
    this.#reserve(FRAME_HEADER_BYTES + 4);
    const pos = writeFrameHeader(this.#buffer, this.#pos, 4, type, 0, stream);
    writeUint32(this.#buffer, pos, value);
    this.#pos = pos + 4;
  }

  #frame(type: number, flags: number, stream: number, payload: Uint8Array = EMPTY): void {
    this.#reserve(FRAME_HEADER_BYTES + payload.length);
    const pos = writeFrameHeader(this.#buffer, this.#pos, payload.length, type, flags, stream);
    this.#buffer.set(payload, pos);
    this.#pos = pos + payload.length;
  }

  #copyFrame(frame: Buffer, stream: number, pos: number): number {
    this.#buffer.set(frame, pos);
    writeUint32(this.#buffer, pos + 5, stream);
    return pos + frame.length;
  }

  #reserve(bytes: number): void {
    if (this.#buffer.length - this.#pos >= bytes) return;
    this.flush();
    if (this.#buffer.length < bytes) {
      this.#buffer = Buffer.allocUnsafeSlow(Math.max(bytes, GATHER_BYTES));
    }
  }
}

const EMPTY = new Uint8Array(0);

/** Bytes of a message. */
export function byteLength(parts: MessageParts): number {
  let total = 0;
  for (const part of parts) total += part.length;
  return total;
}

function writePrefix(buffer: Buffer, pos: number, length: number): number {
  buffer[pos] = 0;
  writeUint32(buffer, pos + 1, length);
  return pos + PREFIX_BYTES;
}
