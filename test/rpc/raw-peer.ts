import { connect, type Socket } from 'node:net';
import {
  encodeFrame,
  FLAG,
  FRAME,
  FrameReader,
  PREFACE,
  settingsPayload,
} from '../../src/rpc/h2/frames.ts';
import { encodeLiteral, type HeaderField } from '../../src/rpc/h2/hpack.ts';

export type SeenFrame = {
  readonly type: number;
  readonly flags: number;
  readonly id: number;
  readonly payload: Buffer;
};

/** An HTTP/2 client that does only what a test tells it, byte by byte. */
export class RawPeer implements Disposable {
  readonly frames: SeenFrame[] = [];
  readonly socket: Socket;
  readonly closed: Promise<void>;
  #ended = false;
  #waiters: (() => void)[] = [];

  constructor(path: string) {
    this.socket = connect(path);
    const reader = new FrameReader({ maxPayload_bytes: 1 << 24 });
    this.socket.on('data', (chunk: Buffer) => {
      reader.push(chunk, {
        frame: (type, flags, id, bytes, start, end) => {
          this.frames.push({ type, flags, id, payload: bytes.subarray(start, end) });
          return true;
        },
      });
      this.#wake();
    });
    this.socket.on('error', () => undefined);
    this.closed = new Promise((resolve) => {
      this.socket.on('close', () => {
        this.#ended = true;
        this.#wake();
        resolve();
      });
    });
  }

  #wake(): void {
    for (const wake of this.#waiters.splice(0)) wake();
  }

  send(...parts: readonly Uint8Array[]): this {
    this.socket.write(Buffer.concat(parts));
    return this;
  }

  /** Preface and SETTINGS, as every client begins. */
  hello(settings: readonly (readonly [number, number])[] = []): this {
    return this.send(PREFACE, encodeFrame(FRAME.settings, 0, 0, settingsPayload(settings)));
  }

  /** The first frame, seen or to come, that `wanted` takes; undefined when the connection ends without. */
  async frame(wanted: (frame: SeenFrame) => boolean): Promise<SeenFrame | undefined> {
    for (;;) {
      const found = this.frames.find(wanted);
      if (found !== undefined || this.#ended) return found;
      await new Promise<void>((resolve) => this.#waiters.push(resolve));
    }
  }

  /** Error code of the GOAWAY that ends the connection. */
  async goaway(): Promise<number | undefined> {
    const frame = await this.frame(({ type }) => type === FRAME.goaway);
    return frame?.payload.readUInt32BE(4);
  }

  async reset(id: number): Promise<number | undefined> {
    const frame = await this.frame((f) => f.type === FRAME.rst_stream && f.id === id);
    return frame?.payload.readUInt32BE(0);
  }

  /** The trailers, or the only headers, of a stream, as text. */
  async trailers(id: number): Promise<string | undefined> {
    const frame = await this.frame(
      (f) => f.type === FRAME.headers && f.id === id && (f.flags & FLAG.end_stream) !== 0,
    );
    return frame?.payload.toString('latin1');
  }

  [Symbol.dispose](): void {
    this.socket.destroy();
  }
}

export function requestFields(path: string, more: readonly HeaderField[] = []): HeaderField[] {
  return [
    [':method', 'POST'],
    [':scheme', 'http'],
    [':path', path],
    ['content-type', 'application/grpc'],
    ['te', 'trailers'],
    ...more,
  ];
}

export function headersFrame(id: number, fields: readonly HeaderField[], flags = 0): Buffer {
  return encodeFrame(FRAME.headers, FLAG.end_headers | flags, id, encodeLiteral(fields));
}

/** A message with gRPC's prefix. */
export function grpcMessage(message: Uint8Array, flag = 0): Buffer {
  const prefix = Buffer.alloc(5);
  prefix[0] = flag;
  prefix.writeUInt32BE(message.length, 1);
  return Buffer.concat([prefix, message]);
}

export function dataFrame(id: number, payload: Uint8Array, flags = 0): Buffer {
  return encodeFrame(FRAME.data, flags, id, payload);
}
