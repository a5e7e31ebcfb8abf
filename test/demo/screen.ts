// What the demo shows while it works: one line that changes on a terminal, plain lines elsewhere.
import { setTimeout as sleep } from 'node:timers/promises';

/** Time between two redraws on a terminal, in ms. */
const REDRAW_MS = 150;
/** Time between two plain lines, in ms: a log of a CI run stays short. */
const PLAIN_MS = 3000;
const CLEAR_LINE = '\r\u001b[K';

/** The part of a writable stream that is needed. */
export interface Sink {
  readonly isTTY?: boolean;
  readonly columns?: number;
  write(text: string): unknown;
}

/** Writes to one sink; finished lines stay, at most one live line follows them. */
export class Screen {
  readonly #sink: Sink;
  #is_live = false;
  /** The last plain line; it is not said twice. */
  #last = '';

  constructor(sink: Sink) {
    this.#sink = sink;
  }

  /** A line (or several) that stays. */
  line(text = ''): void {
    this.clear();
    this.#sink.write(`${text}\n`);
  }

  /** Takes the live line away. */
  clear(): void {
    if (this.#is_live) this.#sink.write(CLEAR_LINE);
    this.#is_live = false;
  }

  /**
   * Shows `text()` again and again until `work` settles, and settles like it. A `text` that rejects is left out that
   * time: what is shown never decides about the work.
   */
  async during<T>(work: Promise<T>, text: () => string | Promise<string>): Promise<T> {
    const over = new AbortController();
    const end = (): void => over.abort();
    work.then(end, end);
    while (!over.signal.aborted) {
      if (this.#sink.isTTY === true) await this.#show(text, over.signal);
      const every_ms = this.#sink.isTTY === true ? REDRAW_MS : PLAIN_MS;
      await sleep(every_ms, undefined, { signal: over.signal }).catch(() => undefined);
      if (this.#sink.isTTY !== true) await this.#show(text, over.signal);
    }
    this.clear();
    return work;
  }

  async #show(text: () => string | Promise<string>, over: AbortSignal): Promise<void> {
    if (over.aborted) return;
    const now = await Promise.resolve()
      .then(text)
      .catch(() => undefined);
    // Looked at again: it may have aborted meanwhile.
    if (now === undefined || isOver(over)) return;
    if (this.#sink.isTTY === true) {
      // A line that wraps could not be cleared.
      this.#sink.write(`${CLEAR_LINE}${now.slice(0, (this.#sink.columns ?? 80) - 1)}`);
      this.#is_live = true;
    } else if (now !== this.#last) {
      this.#sink.write(`${now}\n`);
      this.#last = now;
    }
  }
}

function isOver(signal: AbortSignal): boolean {
  return signal.aborted;
}
