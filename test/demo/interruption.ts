// Ctrl-C and its kin: the first one cleans up, the second one ends at once.
import { constants } from 'node:os';

/** npm hands on a Ctrl-C that the terminal has sent to everybody already: within this time both are one. */
const SAME_KEY_MS = 700;
const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

/** Turns termination signals into an abort. */
export class Interruption {
  readonly #controller = new AbortController();
  #first_ms: number | undefined;
  #exit_code: number | undefined;

  /** Listens from now on; `told` is called once, at the first signal. */
  constructor(told: () => void) {
    for (const name of SIGNALS) {
      process.on(name, () => {
        const code = 128 + constants.signals[name];
        if (this.#first_ms === undefined) {
          this.#first_ms = performance.now();
          this.#exit_code = code;
          told();
          this.#controller.abort();
        } else if (performance.now() - this.#first_ms > SAME_KEY_MS) {
          // Programs die with this process, by the kernel's hand.
          process.stderr.write(
            '\ndemo: ended at once; the next run removes the namespaces and the files in /tmp that are left\n',
          );
          process.exit(code);
        }
      });
    }
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** 128 plus the first signal's number; undefined when there was none. */
  get exitCode(): number | undefined {
    return this.#exit_code;
  }

  /** The reader of our output has gone away: as after SIGHUP, without a word. */
  readerGone(): void {
    this.#first_ms ??= performance.now();
    this.#exit_code ??= 128 + constants.signals.SIGHUP;
    this.#controller.abort();
  }
}
