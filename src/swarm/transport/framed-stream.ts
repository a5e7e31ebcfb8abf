import type { Stream } from '@libp2p/interface';
import { DaemonError } from '../../base/errors.ts';
import { FrameDecoder, type FrameBody } from './frame-decoder.ts';
import { MAX_CONTROL_BACKLOG_BYTES } from '../ground/limits.ts';

type Hooks = {
  readonly header_bytes: number;
  readonly onHeader: (header: Uint8Array) => FrameBody;
  /** Called once, when no frame will come any more. `error` is what our decoder threw, else why the stream ended. */
  readonly onEnd: (error: Error) => void;
};

/**
 * A libp2p stream as whole frames. A frame that breaks its protocol resets the stream; the end of the stream, clean or
 * not, is reported exactly once, because a long-lived stream never ends by itself.
 */
export class FramedStream {
  readonly #stream: Stream;
  readonly #onEnd: (error: Error) => void;
  readonly #gone = new AbortController();

  constructor(stream: Stream, hooks: Hooks) {
    this.#stream = stream;
    this.#onEnd = hooks.onEnd;
    const decoder = new FrameDecoder(hooks.header_bytes, hooks.onHeader);
    stream.addEventListener('message', (event) => {
      if (this.#gone.signal.aborted) return;
      try {
        decoder.push(event.data);
      } catch (error) {
        this.close(error as Error);
      }
    });
    stream.addEventListener('remoteCloseWrite', () => {
      // The last bytes may still lie in the read buffer: they are dispatched before this turn ends.
      setImmediate(() => this.close(ended()));
    });
    stream.addEventListener('close', (event) => this.close(event.error ?? ended()));
    // A stream may have died before anybody could listen to it.
    if (stream.status !== 'open' && stream.status !== 'closing') {
      queueMicrotask(() => this.close(ended()));
    }
  }

  /** Aborts when the stream is gone; its reason tells why. */
  get signal(): AbortSignal {
    return this.#gone.signal;
  }

  /** Sends one small frame without waiting. A peer that leaves too much unread loses the stream (`protocol_error`). */
  sendNow(frame: Uint8Array): void {
    if (this.#gone.signal.aborted) return;
    try {
      this.#stream.send(frame);
    } catch (error) {
      this.close(error as Error);
      return;
    }
    if (this.#stream.writeBufferLength > MAX_CONTROL_BACKLOG_BYTES) {
      this.close(new DaemonError('protocol_error', 'the peer does not read its control stream'));
    }
  }

  /**
   * Sends bytes and waits until the stream takes more. Waits for the `drain` event itself: `onDrain()` of
   * @libp2p/utils 7.4.1 answers at once from its second use on. Rejects with the signal's reason or the stream's end.
   */
  async send(bytes: Uint8Array, signal: AbortSignal): Promise<void> {
    this.#gone.signal.throwIfAborted();
    signal.throwIfAborted();
    this.#stream.send(bytes);
    while (this.#stream.writableNeedsDrain) await this.#drained(signal);
  }

  /** Resets the stream. Idempotent. */
  close(reason: Error): void {
    if (this.#gone.signal.aborted) return;
    this.#gone.abort(reason);
    this.#stream.abort(reason);
    this.#onEnd(reason);
  }

  #drained(signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const settle = (act: () => void) => (): void => {
        this.#stream.removeEventListener('drain', onDrain);
        signal.removeEventListener('abort', onAbort);
        this.#gone.signal.removeEventListener('abort', onGone);
        act();
      };
      const onDrain = settle(resolve);
      const onAbort = settle(() => reject(signal.reason as Error));
      const onGone = settle(() => reject(this.#gone.signal.reason as Error));
      this.#stream.addEventListener('drain', onDrain);
      signal.addEventListener('abort', onAbort, { once: true });
      this.#gone.signal.addEventListener('abort', onGone, { once: true });
      if (this.#gone.signal.aborted) onGone();
      else if (signal.aborted) onAbort();
    });
  }
}

function ended(): DaemonError {
  return new DaemonError('unavailable', 'the peer ended the stream');
}
