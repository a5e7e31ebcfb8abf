import PQueue from 'p-queue';

/**
 * `quick` = a blob so small that it must not wait for large ones; `urgent` = a whole blob in one piece, waited for; `front` = somebody
 * waits for the blob; `back` = fetched ahead or healed.
 */
export type Lane = 'quick' | 'urgent' | 'front' | 'back';

/** Requests of the quick lane at the same time: at 64 KiB each less memory than one piece, and no more than one peer takes at once. */
const QUICK_SLOTS = 12;
const PRIORITY = { urgent: 2, front: 1, back: 0 } as const;

/** A session that waits for depth at a source. */
export type DepthWaiter = {
  /** It comes before those that are not. */
  readonly urgent: boolean;
  readonly onFreed: () => void;
};

/**
 * Bounds what all sessions fetch together. A slot is held from the request until the piece is written, so memory for
 * pieces never exceeds `slots` x 4 MiB (and less than one piece of quick ones). Work in the back lane gets at most half of the slots and only what
 * the others leave. Who gets a slot decides only then which piece to take from whom.
 *
 * Depth at a source is not handed out here, but its news are: sessions hear in turn that some is free, so that those which share a
 * source share it evenly.
 */
export class FetchGate {
  readonly slots: number;
  readonly #quick = new PQueue({ concurrency: QUICK_SLOTS });
  readonly #main: PQueue;
  readonly #back: PQueue;
  readonly #waiters = new Set<DepthWaiter>();

  constructor(config: { readonly pieces_in_flight_max: number }) {
    this.slots = config.pieces_in_flight_max;
    this.#main = new PQueue({ concurrency: this.slots });
    this.#back = new PQueue({ concurrency: Math.max(1, Math.floor(this.slots / 2)) });
  }

  /** True when further requests wait for a slot. */
  get full(): boolean {
    return this.#main.pending >= this.slots && this.#main.size > 0;
  }

  /** Runs `work` when a slot is free. `work` must not reject; callers keep at most `slots` requests per lane waiting. */
  slot(lane: Lane, work: () => Promise<void>): void {
    if (lane === 'quick') void this.#quick.add(work);
    else if (lane === 'back') void this.#back.add(() => this.#main.add(work, { priority: 0 }));
    else void this.#main.add(work, { priority: PRIORITY[lane] });
  }

  /** Tells the waiter whenever depth at a source is free. Returns the unsubscribe function. */
  wait(waiter: DepthWaiter): () => void {
    this.#waiters.add(waiter);
    return () => void this.#waiters.delete(waiter);
  }

  /** The waiter has just been served: next time the others come first. */
  served(waiter: DepthWaiter): void {
    if (this.#waiters.delete(waiter)) this.#waiters.add(waiter);
  }

  /** Depth at some source is free. */
  freed(): void {
    const waiters = [...this.#waiters];
    for (const w of waiters) if (w.urgent) w.onFreed();
    for (const w of waiters) if (!w.urgent) w.onFreed();
  }
}
