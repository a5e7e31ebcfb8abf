import { ConnectionError, H2_CODE } from './frames.ts';

/** Given back at arrival: what may lie on a connection is bounded by the windows of its streams, see CreditPool. */
export const CONNECTION_WINDOW = 64 * 1024 * 1024;
const CREDIT_AT = 8 * 1024 * 1024;

/** What a client may still send on a connection, over all streams (RFC 9113, 6.9). */
export class ReceiveWindow {
  #left = CONNECTION_WINDOW;

  /**
   * DATA of `size` bytes arrived. Gives what to hand back by WINDOW_UPDATE now, often 0.
   * @throws ConnectionError `flow_control_error` when the client had not so much left
   */
  spend(size: number): number {
    this.#left -= size;
    if (this.#left < 0) {
      throw new ConnectionError(H2_CODE.flow_control_error, 'more DATA than the window allows');
    }
    const spent = CONNECTION_WINDOW - this.#left;
    if (spent < CREDIT_AT) return 0;
    this.#left = CONNECTION_WINDOW;
    return spent;
  }
}

/** The last few stream ids that were put in. */
export class RecentIds {
  readonly #ids = new Set<number>();
  readonly #limit: number;

  constructor(config: { readonly limit: number }) {
    this.#limit = config.limit;
  }

  add(id: number): void {
    this.#ids.add(id);
    if (this.#ids.size <= this.#limit) return;
    for (const oldest of this.#ids) {
      this.#ids.delete(oldest);
      break;
    }
  }

  has(id: number): boolean {
    return this.#ids.has(id);
  }
}
