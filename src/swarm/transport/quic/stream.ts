import {
  type AbortOptions,
  type EventHandler,
  type Logger,
  type MessageStreamDirection,
  type MessageStreamEvents,
  StreamResetError,
} from '@libp2p/interface';
import { AbstractStream } from '@libp2p/utils';
import { readBounded } from './bounded-reader.ts';
import type { QuicConfig } from './config.ts';
import type { NativeStream } from './native.ts';
import { ReadSize } from './read-size.ts';
import { writeSlices } from './write-slices.ts';

type Outgoing = Parameters<AbstractStream['sendData']>[0];
type SendResult = ReturnType<AbstractStream['sendData']>;

/**
 * One QUIC stream.
 *
 * Reading: one native read at a time, of up to `read_bytes`. While the stream is paused, or nobody takes what was read,
 * no further read starts (the one under way may still deliver); QUIC's flow control then stops the peer after
 * `stream_window_bytes`. A reset by the peer and a lost connection end the stream with an error, only a FIN ends it
 * cleanly. A paused stream learns of a reset when it is resumed.
 *
 * Writing: `send` returns false as long as bytes are on their way to the native side, and 'drain' follows when the last
 * of them was taken. Bytes given to `send` are lent until then: they are read from another thread, not copied.
 *
 * `abort` resets both directions, `close` ends ours with a FIN. A reset waits for a native write that the peer's window
 * is blocking, so a peer that has paused learns of it only after it has read on.
 */
export class QuicStream extends AbstractStream {
  readonly #native: NativeStream;
  readonly #config: Pick<QuicConfig, 'read_bytes' | 'write_bytes'>;
  readonly #readSize: ReadSize;
  #wake: (() => void) | undefined;

  constructor(
    native: NativeStream,
    init: { readonly direction: MessageStreamDirection; readonly log: Logger },
    config: Pick<QuicConfig, 'read_bytes' | 'write_bytes'>,
  ) {
    // Both ends count their own streams from zero, so the bare number would not be unique within the connection.
    super({ ...init, id: `${init.direction === 'inbound' ? 'i' : 'o'}${native.id()}` });
    this.#native = native;
    this.#config = config;
    this.#readSize = new ReadSize(config.read_bytes);
    void this.#read();
  }

  /**
   * Resolves when nothing more is on its way to the native side; rejects when the stream ends first. (The base class's
   * own keeps its first promise, so that from the second wait on it would return at once.)
   */
  override onDrain(options: AbortOptions = {}): Promise<void> {
    if (!this.writableNeedsDrain) return Promise.resolve();
    if (this.#over()) return Promise.reject(new StreamResetError());
    return this.#drained(options.signal);
  }

  /** Holds at most `read_bytes` plus one read for a slow consumer, and throws when the stream was cut off. */
  override [Symbol.asyncIterator](): ReturnType<typeof readBounded> {
    return readBounded(this, this.#config.read_bytes);
  }

  override addEventListener<K extends keyof MessageStreamEvents>(
    type: K,
    listener: EventHandler<MessageStreamEvents[K]> | null,
    options?: boolean | { readonly once?: boolean; readonly signal?: AbortSignal },
  ): void {
    super.addEventListener(type, listener, options);
    // The base class hands out what was held back in a microtask; then there is room to read on.
    if (type === 'message') queueMicrotask(() => this.#wake?.());
  }

  sendData(data: Outgoing): SendResult {
    void this.#write(data);
    return { sentBytes: data.byteLength, canSendMore: false };
  }

  sendReset(): void {
    void this.#native.resetWrite();
    void this.#native.stopRead();
    this.#wake?.();
  }

  sendCloseWrite(): Promise<void> {
    return this.#native.finishWrite();
  }

  /**
   * The peer is not told: it would take QUIC's STOP_SENDING for a reset of the whole stream. What it still sends is read
   * and dropped, so that its FIN is seen.
   */
  sendCloseRead(): Promise<void> {
    this.#wake?.();
    return Promise.resolve();
  }

  // Pausing is the read loop's matter: it looks at the status before each read.
  sendPause(): void {}

  sendResume(): void {
    this.#wake?.();
  }

  #drained(signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve, reject) => {
      const settled = new AbortController();
      const settle = (failure?: Error): void => {
        settled.abort();
        if (failure === undefined) resolve();
        else reject(failure);
      };
      const once = { once: true, signal: settled.signal };
      this.addEventListener('drain', () => settle(), once);
      this.addEventListener('close', ({ error }) => settle(error ?? new StreamResetError()), once);
      signal?.addEventListener('abort', () => settle(signal.reason as Error), once);
      if (signal?.aborted === true) settle(signal.reason as Error);
    });
  }

  #over(): boolean {
    return this.status === 'aborted' || this.status === 'reset' || this.status === 'closed';
  }

  #mayRead(): boolean {
    if (this.readStatus === 'paused') return false;
    return this.readStatus !== 'readable' || this.readBuffer.byteLength < this.#config.read_bytes;
  }

  async #read(): Promise<void> {
    while (!this.#over()) {
      if (!this.#mayRead()) {
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
        this.#wake = undefined;
        continue;
      }
      let chunk: Uint8Array | null;
      try {
        chunk = await this.#native.read(this.#readSize.bytes);
      } catch (error) {
        this.#lost('read', error);
        return;
      }
      if (this.#over()) return;
      if (chunk === null) {
        this.onRemoteCloseWrite();
        return;
      }
      this.#readSize.got(chunk.byteLength);
      this.onData(chunk);
    }
  }

  async #write(data: Outgoing): Promise<void> {
    try {
      for (const slice of writeSlices(data, this.#config.write_bytes)) {
        await this.#native.write(slice);
        if (this.#over()) return;
      }
    } catch (error) {
      this.#lost('write', error);
      return;
    }
    if (this.writeBuffer.byteLength === 0) {
      this.safeDispatchEvent('drain');
      return;
    }
    // More was sent meanwhile. 'drain' would invite still more, so it waits until that has gone too.
    this.writableNeedsDrain = false;
    this.processSendQueue();
  }

  /**
   * The native side tells a reset, a STOP_SENDING and a lost connection apart only in words; all three mean that bytes
   * may be missing. Resets our half too: a native stream that is merely dropped would send a FIN.
   */
  #lost(during: 'read' | 'write', error: unknown): void {
    if (this.#over()) return;
    this.log('stream %s failed - %e', during, error);
    this.onRemoteReset();
    this.sendReset();
  }
}
