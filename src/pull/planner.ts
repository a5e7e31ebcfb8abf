import { PULL_LIMITS } from './pull-config.ts';

/** A source as the planner sees it. */
export type PlanSource = {
  readonly id: string;
  readonly near: boolean;
  readonly depth: number;
  /** Requests it has now, of all sessions. */
  readonly in_flight: number;
  /** Bytes per millisecond; undefined when not measured yet. */
  readonly rate: number | undefined;
  /** False while it is excluded. */
  readonly usable: boolean;
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
 * missing any more, slow flights are duplicated at idle faster sources. Near sources before far ones, idle before loaded, fast
 * before slow. Never more than `depth` requests at a source, never one piece twice at the same source, never an excluded
 * source; demoted sources count only when nothing better is left, but then they do.
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
      if (!moving.has(piece)) this.#assign(piece, 'hedge', () => true);
    }
  }

  assignMissing(): void {
    while (this.#missing.length > 0) {
      const window = Math.min(this.#missing.length, PULL_LIMITS.spread_window);
      const at =
        this.#input.order === 'prefix' ? 0 : Math.floor(this.#input.random() * window) % window;
      if (!this.#assign(this.#missing[at]!, 'missing', () => true)) return;
      this.#missing.splice(at, 1);
    }
  }

  endgame(): void {
    const { flights, piece_bytes, race } = this.#input;
    const slowest = flights.filter((f) => !f.stalled && this.#held(f.piece).size < 2);
    slowest.sort((a, b) => (b.eta_ms ?? 0) - (a.eta_ms ?? 0));
    for (const flight of slowest) {
      // Twice a piece is only worth its bytes when the copy would clearly be here first.
      const worth = (s: PlanSource): boolean =>
        race ||
        (flight.eta_ms !== undefined &&
          s.rate !== undefined &&
          flight.eta_ms > 50 + 1.5 * (piece_bytes / s.rate));
      this.#assign(flight.piece, 'endgame', worth);
    }
  }

  #assign(piece: number, reason: Assignment['reason'], worth: (s: PlanSource) => boolean): boolean {
    if (this.assignments.length >= this.#input.budget) return false;
    const others = this.#input.sources.filter((s) => s.usable && !this.#held(piece).has(s.id));
    const good = others.filter((s) => !s.demoted);
    const free = (good.length > 0 ? good : others).filter(
      (s) => (this.#load.get(s.id) ?? 0) < s.depth && worth(s),
    );
    const best = this.#best(free);
    if (best === undefined) return false;
    this.#load.set(best.id, (this.#load.get(best.id) ?? 0) + 1);
    this.#held(piece).add(best.id);
    this.assignments.push({ piece, source: best.id, reason });
    return true;
  }

  #best(sources: readonly PlanSource[]): PlanSource | undefined {
    const near = sources.filter((s) => s.near);
    let best: PlanSource | undefined;
    let best_score = Number.POSITIVE_INFINITY;
    for (const s of near.length > 0 ? near : sources) {
      // Load decides, rate breaks ties (a source not measured yet is tried like a fast one), chance the rest.
      const speed = s.rate === undefined ? 0 : 1 / (1 + s.rate);
      const load = (this.#load.get(s.id) ?? 0) / s.depth;
      const score = load + speed / 10 + this.#input.random() / 1e6;
      if (score < best_score) {
        best = s;
        best_score = score;
      }
    }
    return best;
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
