import type { Clock } from '../../base/clock.ts';

/** How long a PING's answer may wait; far below any keepalive's timeout. */
const DELAY_MS = 50;

/**
 * Answers a client's PINGs, a little later. grpc-go sends a PING with the first data after each answer to the last one, and takes what it
 * received in between for the bandwidth-delay product that its windows should have. Answered at once, that is one Read of containerd's: its
 * windows stay at 64 KiB, and every Read costs both sides a PING and four WINDOW_UPDATEs (half of our CPU in a warm pull).
 */
export class PingAnswers {
  readonly #clock: Clock;
  readonly #send: (payload: Uint8Array) => void;
  readonly #sendLate: (payload: Uint8Array) => void;
  readonly #signal: AbortSignal;
  /** The one that waits. */
  #owed: Uint8Array | undefined;

  /** `send` is for an answer while frames are being read, `sendLate` for one on its own. `signal`: the connection is gone. */
  constructor(
    modules: {
      readonly clock: Clock;
      readonly send: (payload: Uint8Array) => void;
      readonly sendLate: (payload: Uint8Array) => void;
    },
    signal: AbortSignal,
  ) {
    this.#clock = modules.clock;
    this.#send = modules.send;
    this.#sendLate = modules.sendLate;
    this.#signal = signal;
  }

  /** The answer waits; when another PING comes meanwhile the first one is answered, so no more than one waits. Lent bytes. */
  ping(payload: Uint8Array): void {
    const before = this.#owed;
    this.#owed = Buffer.from(payload);
    if (before !== undefined) {
      this.#send(before);
      return;
    }
    this.#clock.sleep(DELAY_MS, { signal: this.#signal }).then(
      () => this.#due(),
      () => undefined, // the connection is gone
    );
  }

  #due(): void {
    const payload = this.#owed;
    this.#owed = undefined;
    if (payload !== undefined) this.#sendLate(payload);
  }
}
