import type { Clock } from '../../base/clock.ts';

/** Part of its time a peer may be silent before it is asked; by default more than the pause between two of its pings. */
const PATIENCE_PART = 0.6;

type Modules = {
  readonly clock: Clock;
  /** Asks the peer for an answer, whatever it is; true when it came. Never rejects, ends with its signal. */
  readonly ask: (signal: AbortSignal) => Promise<boolean>;
  /** Time for our own sign of life. */
  readonly onPing: () => void;
  /** Not a byte for the whole time, and no answer. Called once at most. */
  readonly onSilent: () => void;
};

/**
 * Tells a peer that is silent from one that is dead. Any byte of its connection is life. One that is silent for long is
 * asked first, because its pings may be further apart than our patience; one that does not answer either is dead.
 */
export class LifeWatch {
  readonly #modules: Modules;
  readonly #config: { readonly peer_timeout_ms: number; readonly ping_interval_ms: number };
  #heard_ms: number;
  #isAsking = false;

  constructor(
    modules: Modules,
    config: { readonly peer_timeout_ms: number; readonly ping_interval_ms: number },
  ) {
    this.#modules = modules;
    this.#config = config;
    this.#heard_ms = modules.clock.now_ms();
  }

  /** Something came from the peer. */
  heard(): void {
    this.#heard_ms = this.#modules.clock.now_ms();
  }

  /** Runs until the signal aborts or the peer is dead. Never rejects. */
  async run(signal: AbortSignal): Promise<void> {
    const { clock, onPing, onSilent } = this.#modules;
    const { peer_timeout_ms, ping_interval_ms } = this.#config;
    const patience_ms = peer_timeout_ms * PATIENCE_PART;
    let ping_ms = clock.now_ms() + ping_interval_ms;
    const isOver = (): boolean => signal.aborted;
    while (!isOver()) {
      const now_ms = clock.now_ms();
      const silent_ms = now_ms - this.#heard_ms;
      const left_ms = peer_timeout_ms - silent_ms;
      if (left_ms <= 0) {
        onSilent();
        return;
      }
      const isPatient = silent_ms < patience_ms;
      if (!isPatient) void this.#ask(left_ms, signal);
      const pause_ms = isPatient ? patience_ms - silent_ms : left_ms;
      // A millisecond at least: real timers may fire a little early.
      const until_ms = Math.max(Math.min(pause_ms, ping_ms - now_ms), 1);
      await clock.sleep(until_ms, { signal }).catch(() => undefined);
      if (isOver() || clock.now_ms() < ping_ms) continue;
      ping_ms = clock.now_ms() + ping_interval_ms;
      onPing();
    }
  }

  async #ask(longest_ms: number, signal: AbortSignal): Promise<void> {
    if (this.#isAsking) return;
    this.#isAsking = true;
    const deadline = AbortSignal.any([signal, this.#modules.clock.timeout(longest_ms)]);
    if (await this.#modules.ask(deadline)) this.heard();
    this.#isAsking = false;
  }
}
