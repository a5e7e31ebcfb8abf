import PQueue from 'p-queue';

/** `front` = somebody waits for the blob; `back` = fetched ahead or healed. */
export type Lane = 'front' | 'back';

/**
 * Bounds what all sessions fetch together. A slot is held from the request until the piece is written, so memory for
 * pieces never exceeds `slots` x 4 MiB. Work in the back lane gets at most half of the slots and only what the front leaves.
 * Who gets a slot decides only then which piece to take from whom.
 */
export class FetchGate {
  readonly slots: number;
  readonly #front: PQueue;
  readonly #back: PQueue;

  constructor(config: { readonly pieces_in_flight_max: number }) {
    this.slots = config.pieces_in_flight_max;
    this.#front = new PQueue({ concurrency: this.slots });
    this.#back = new PQueue({ concurrency: Math.max(1, Math.floor(this.slots / 2)) });
  }

  /** True when further requests wait for a slot. */
  get full(): boolean {
    return this.#front.pending >= this.slots && this.#front.size > 0;
  }

  /** Runs `work` when a slot is free. `work` must not reject; callers keep at most `slots` requests per lane waiting. */
  slot(lane: Lane, work: () => Promise<void>): void {
    if (lane === 'front') void this.#front.add(work, { priority: 1 });
    else void this.#back.add(() => this.#front.add(work, { priority: 0 }));
  }
}
