import { PULL_LIMITS } from './pull-config.ts';

/** A source as the planner sees it. */
export type PlanSource = {
  readonly id: string;
  readonly near: boolean;
  readonly depth: number;
  /** Requests it has now, of all sessions. */
  readonly in_flight: number;
  /** Bytes per millisecond of all its requests together; undefined when not measured yet. */
  readonly rate: number | undefined;
  /** How long it lets us wait for a first byte; undefined when not measured yet. */
  readonly first_byte_ms: number | undefined;
  /** `soon` = busy, but for so short a time that a near one is waited for; `out` = excluded. */
  readonly state: 'usable' | 'soon' | 'out';
  /** True: used only when no other usable source is left. */
  readonly demoted: boolean;
};

/** A piece that is being fetched. */
export type PlanFlight = {
  readonly piece: number;
  readonly source: string;
  readonly stalled: boolean;
  /** Expected time until it is here, in ms; Infinity when it moves too little to tell, undefined when it is too young to tell. */
  readonly eta_ms: number | undefined;
};

export type PlanInput = {
  /** Pieces neither here nor in flight, ascending; a window is enough. */
  readonly missing: readonly number[];
  readonly flights: readonly PlanFlight[];
  readonly sources: readonly PlanSource[];
  /** Most assignments wanted. */
  readonly budget: number;
  /** `prefix` = lowest first, for somebody waits; `spread` = drawn from the lowest few. */
  readonly order: 'prefix' | 'spread';
  /** Bytes of a full piece, to turn rates into times. */
  readonly piece_bytes: number;
  /** True for small blobs: ask a second source at once and take the first answer. */
  readonly race: boolean;
  /** In [0, 1); seeded by tests. */
  readonly random: () => number;
};

export type Assignment = {
  readonly piece: number;
  readonly source: string;
  readonly reason: 'missing' | 'hedge' | 'endgame';
};

/**
 * Who is asked for what, next. Pure. Stalled pieces first (a second source for each), then missing ones, and when none is
 * missing any more, slow flights are duplicated at idle much faster sources. Near sources before far ones, idle before loaded, fast
 * before slow. Zone comes before load: while a near source is quick enough, its depth is waited for before a far one is asked.
 * Never more than `depth` requests at a source, never one piece twice at the same source, never an excluded source; demoted
 * sources count only when nothing better is left, but then they do.
 */
export function plan(input: PlanInput): Assignment[] {
  const board = new Board(input);
  board.hedge();
  board.assignMissing();
  if (board.missing_left === 0) board.endgame();
  return board.assignments;
}

class Board {
  readonly assignments: Assignment[] = [];
  readonly #input: PlanInput;
  readonly #missing: number[];
  readonly #load = new Map<string, number>();
  readonly #holders = new Map<number, Set<string>>();

  constructor(input: PlanInput) {
    this.#input = input;
    this.#missing = [...input.missing];
    for (const s of input.sources) this.#load.set(s.id, s.in_flight);
    for (const f of input.flights) this.#held(f.piece).add(f.source);
  }

  get missing_left(): number {
    return this.#missing.length;
  }

  hedge(): void {
    const moving = new Set(this.#input.flights.filter((f) => !f.stalled).map((f) => f.piece));
    const stalled = new Set(this.#input.flights.filter((f) => f.stalled).map((f) => f.piece));
    for (const piece of [...stalled].sort((a, b) => a - b)) {
      if (!moving.has(piece)) this.#assign(piece, 'hedge');
    }
  }

  assignMissing(): void {
    while (this.#missing.length > 0) {
      const window = Math.min(this.#missing.length, PULL_LIMITS.spread_window);
      const at =
        this.#input.order === 'prefix' ? 0 : Math.floor(this.#input.random() * window) % window;
      if (!this.#assign(this.#missing[at]!, 'missing')) return;
      this.#missing.splice(at, 1);
    }
  }

  endgame(): void {
    const { flights, piece_bytes, race } = this.#input;
    const slowest = flights
      .filter((f) => !f.stalled && this.#held(f.piece).size < 2)
      .map((f) => ({ piece: f.piece, eta_ms: this.#eta_ms(f) }));
    slowest.sort((a, b) => (b.eta_ms ?? 0) - (a.eta_ms ?? 0));
    for (const { piece, eta_ms } of slowest) {
      // Twice a piece is only worth its bytes when the copy would clearly be here first.
      const worth = (s: PlanSource): boolean =>
        race ||
        (eta_ms !== undefined &&
          s.rate !== undefined &&
          // It would stand behind what that source has to send already, for whichever pull.
          eta_ms >
            PULL_LIMITS.endgame_least_ms +
              PULL_LIMITS.endgame_gain * (((this.#loadOf(s) + 1) * piece_bytes) / s.rate));
      this.#assign(piece, 'endgame', worth);
    }
  }

  /** A piece of which nothing came yet queues behind the others that its source has to send. */
  #eta_ms({ source, eta_ms }: PlanFlight): number | undefined {
    if (eta_ms !== Number.POSITIVE_INFINITY) return eta_ms;
    const holder = this.#input.sources.find((s) => s.id === source);
    if (holder?.rate === undefined) return eta_ms;
    return (holder.in_flight * this.#input.piece_bytes) / holder.rate;
  }

  #assign(
    piece: number,
    reason: Assignment['reason'],
    worth: (s: PlanSource) => boolean = () => true,
  ): boolean {
    if (this.assignments.length >= this.#input.budget) return false;
    const best = this.#best(this.#eligible(piece, reason).filter((s) => this.#free(s) && worth(s)));
    if (best === undefined) return false;
    this.#load.set(best.id, this.#loadOf(best) + 1);
    this.#held(piece).add(best.id);
    this.assignments.push({ piece, source: best.id, reason });
    return true;
  }

  /** Who may be asked for the piece, whether there is room or not. Only a missing piece waits: a stalled one is late already. */
  #eligible(piece: number, reason: Assignment['reason']): readonly PlanSource[] {
    const others = this.#input.sources.filter(
      (s) => s.state !== 'out' && !this.#held(piece).has(s.id),
    );
    const usable = others.filter((s) => s.state === 'usable');
    const good = usable.filter((s) => !s.demoted);
    const pool = good.length > 0 ? good : usable;
    const waits =
      reason === 'missing' &&
      others.some((s) => s.near && !s.demoted && this.#isQuickEnough(s, pool));
    return waits ? pool.filter((s) => s.near) : pool;
  }

  /** Nobody waits for a near source that is slow, unless the far ones are known to be hardly better: then it is our own line. */
  #isQuickEnough({ rate }: PlanSource, pool: readonly PlanSource[]): boolean {
    if (rate === undefined) return true;
    if (this.#input.piece_bytes / rate <= PULL_LIMITS.near_piece_ms) return true;
    const far = pool.filter((s) => !s.near);
    return far.every((s) => s.rate !== undefined && s.rate <= rate * PULL_LIMITS.near_handicap);
  }

  #best(sources: readonly PlanSource[]): PlanSource | undefined {
    const near = sources.filter((s) => s.near);
    let best: PlanSource | undefined;
    let best_score = Number.POSITIVE_INFINITY;
    for (const s of near.length > 0 ? near : sources) {
      const score = this.#score(s);
      if (score < best_score) {
        best = s;
        best_score = score;
      }
    }
    return best;
  }

  /** Load decides, rate breaks ties (a source not measured yet is tried like a fast one), chance the rest. Of a race, who answers soonest. */
  #score(s: PlanSource): number {
    const chance = this.#input.random() / 1e6;
    if (this.#input.race) return (s.first_byte_ms ?? 0) + chance;
    const speed = s.rate === undefined ? 0 : 1 / (1 + s.rate);
    return this.#loadOf(s) / s.depth + speed / 10 + chance;
  }

  #free(s: PlanSource): boolean {
    return this.#loadOf(s) < s.depth;
  }

  #loadOf(s: PlanSource): number {
    return this.#load.get(s.id) ?? 0;
  }

  #held(piece: number): Set<string> {
    let held = this.#holders.get(piece);
    if (held === undefined) {
      held = new Set();
      this.#holders.set(piece, held);
    }
    return held;
  }
}
