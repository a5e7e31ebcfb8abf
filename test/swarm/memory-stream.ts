import type { Stream } from '@libp2p/interface';

/**
 * One end of a pair of joined streams in memory, with as much of libp2p's stream as our rooms use. Bytes arrive in a
 * later turn. `holds` makes it behave like a full transport: what is sent waits until `drain()`.
 */
export class MemoryStream extends EventTarget {
  status: 'open' | 'closed' | 'aborted' | 'reset' = 'open';
  /** Everything this end sent, a copy of each call. */
  readonly sent: Uint8Array[] = [];
  writableNeedsDrain = false;
  holds = false;
  #peer: MemoryStream | undefined;
  #held: Uint8Array[] = [];

  static pair(): [MemoryStream, MemoryStream] {
    const a = new MemoryStream();
    const b = new MemoryStream();
    a.#peer = b;
    b.#peer = a;
    return [a, b];
  }

  /** As the rooms take it. */
  get stream(): Stream {
    return this as unknown as Stream;
  }

  get writeBufferLength(): number {
    return this.#held.reduce((sum, bytes) => sum + bytes.length, 0);
  }

  send(bytes: Uint8Array): boolean {
    if (this.status !== 'open') throw new Error('stream is not open');
    this.sent.push(bytes.slice());
    if (this.holds) {
      this.#held.push(bytes.slice());
      this.writableNeedsDrain = true;
      return false;
    }
    this.#deliver(bytes.slice());
    return true;
  }

  /** Passes on what was held. */
  drain(): void {
    const held = this.#held;
    this.#held = [];
    for (const bytes of held) this.#deliver(bytes);
    this.writableNeedsDrain = false;
    this.dispatchEvent(new Event('drain'));
  }

  abort(error: Error): void {
    if (this.status !== 'open') return;
    this.#end('aborted', error);
    queueMicrotask(() => this.#peer?.remoteReset());
  }

  async close(): Promise<void> {
    setImmediate(() => this.#peer?.dispatchEvent(new Event('remoteCloseWrite')));
  }

  remoteReset(): void {
    if (this.status === 'open') this.#end('reset', new Error('the other end reset the stream'));
  }

  #end(status: 'aborted' | 'reset', error: Error): void {
    this.status = status;
    this.dispatchEvent(Object.assign(new Event('close'), { error }));
  }

  #deliver(data: Uint8Array): void {
    setImmediate(() => {
      const peer = this.#peer;
      if (peer?.status === 'open')
        peer.dispatchEvent(Object.assign(new Event('message'), { data }));
    });
  }
}
