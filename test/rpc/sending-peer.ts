import { encodeFrame, FLAG, FRAME, H2_CODE, MAX_WINDOW } from '../../src/rpc/h2/frames.ts';
import { dataFrame, headersFrame, RawPeer, requestFields } from './raw-peer.ts';

const MAX_DATA_BYTES = 16_384;
const DEFAULT_WINDOW = 65_535;

type Outgoing = { window: number; readonly queue: Buffer[]; end: boolean; ended: boolean };

/**
 * A client that sends all it has as soon as the server's windows let it (RFC 9113, 6.9), all streams in turn.
 * Answers are to be small: it gives no credit for them.
 */
export class SendingPeer implements Disposable {
  readonly peer: RawPeer;
  /** Bytes of DATA sent, over all streams. */
  sent = 0;
  #connectionWindow = DEFAULT_WINDOW;
  #initialWindow = DEFAULT_WINDOW;
  #seen = 0;
  readonly #streams = new Map<number, Outgoing>();

  constructor(path: string) {
    this.peer = new RawPeer(path);
    this.peer.hello();
    this.peer.socket.on('data', () => this.#heard());
  }

  /** Opens a stream. */
  open(id: number, path: string): this {
    this.peer.send(headersFrame(id, requestFields(path)));
    this.#streams.set(id, { window: this.#initialWindow, queue: [], end: false, ended: false });
    return this;
  }

  /** Sends `bytes` when the windows allow. */
  put(id: number, bytes: Buffer, { end = false } = {}): this {
    const stream = this.#streams.get(id)!;
    stream.queue.push(bytes);
    stream.end = end;
    this.#pump();
    return this;
  }

  /** Gives the call up. */
  reset(id: number): this {
    this.#streams.delete(id);
    const code = Buffer.alloc(4);
    code.writeUInt32BE(H2_CODE.cancel);
    this.peer.send(encodeFrame(FRAME.rst_stream, 0, id, code));
    return this;
  }

  /** Bytes that windows hold back. */
  waiting(id: number): number {
    return this.#streams.get(id)!.queue.reduce((sum, { length }) => sum + length, 0);
  }

  /** Resolves when the server has read all that was sent. */
  async heard(): Promise<void> {
    const before = this.#acks();
    this.peer.send(encodeFrame(FRAME.settings, 0, 0));
    await this.peer.frame(() => this.#acks() > before);
  }

  /** Resolves when nothing more can be sent: windows or queues are empty, and the server has nothing to say to that. */
  async blocked(): Promise<void> {
    for (let before = -1; before !== this.sent; ) {
      before = this.sent;
      await this.heard();
    }
  }

  [Symbol.dispose](): void {
    this.peer[Symbol.dispose]();
  }

  #acks(): number {
    return this.peer.frames.filter((f) => f.type === FRAME.settings && f.flags === FLAG.ack).length;
  }

  #heard(): void {
    for (const { type, flags, id, payload } of this.peer.frames.slice(this.#seen)) {
      if (type === FRAME.window_update) {
        const bytes = payload.readUInt32BE(0) & MAX_WINDOW;
        const stream = this.#streams.get(id);
        if (id === 0) this.#connectionWindow += bytes;
        else if (stream !== undefined) stream.window += bytes;
      } else if (type === FRAME.settings && (flags & FLAG.ack) === 0) this.#settings(payload);
      else if (type === FRAME.rst_stream) this.#streams.delete(id);
    }
    this.#seen = this.peer.frames.length;
    this.#pump();
  }

  #settings(payload: Buffer): void {
    for (let pos = 0; pos < payload.length; pos += 6) {
      if (payload.readUInt16BE(pos) !== 4) continue;
      const change = payload.readUInt32BE(pos + 2) - this.#initialWindow;
      this.#initialWindow += change;
      for (const stream of this.#streams.values()) stream.window += change;
    }
  }

  #pump(): void {
    for (let busy = true; busy; ) {
      busy = false;
      for (const [id, stream] of this.#streams) busy = this.#frame(id, stream) || busy;
    }
  }

  #frame(id: number, stream: Outgoing): boolean {
    const [first] = stream.queue;
    if (first === undefined) {
      if (!stream.end || stream.ended) return false;
      stream.ended = true;
      this.peer.send(dataFrame(id, Buffer.alloc(0), FLAG.end_stream));
      return true;
    }
    const count = Math.min(first.length, MAX_DATA_BYTES, stream.window, this.#connectionWindow);
    if (count <= 0) return false;
    this.peer.send(dataFrame(id, first.subarray(0, count)));
    stream.window -= count;
    this.#connectionWindow -= count;
    this.sent += count;
    if (count === first.length) stream.queue.shift();
    else stream.queue[0] = first.subarray(count);
    return true;
  }
}
