import type { Clock } from '../base/clock.ts';
import { DaemonError } from '../base/errors.ts';
import type { PieceSource, UnverifiedPiece } from '../piece/source.ts';
import type { RequestSize } from '../piece/standing.ts';
import { untilAborted } from './deadline.ts';
import type { Assignment, PlanFlight } from './planner.ts';
import type { Member } from './roster.ts';
import type { FetchGate } from './fetch-gate.ts';
import { FlightMeter, type StallKind, type StallWatch } from './stall-watch.ts';

type FlightConfig = {
  readonly first_byte_timeout_ms: number;
  readonly min_bytes_per_second: number;
};

/** One request for one piece at one source, from the call to the bytes. Keeps standing and stall watch informed. */
export class Flight {
  readonly piece: number;
  readonly length: number;
  readonly reason: Assignment['reason'];
  readonly member: Member;
  /** The source that was asked; the member may have a newer one by now. */
  readonly source: PieceSource;
  readonly meter: FlightMeter;
  stalled: StallKind | undefined;
  readonly #clock: Clock;
  readonly #gate: FetchGate;
  readonly #watch: StallWatch;
  readonly #size: RequestSize;
  readonly #patience_ms: number;
  readonly #end = new AbortController();

  constructor(
    modules: { clock: Clock; gate: FetchGate; watch: StallWatch },
    what: {
      piece: number;
      length: number;
      reason: Assignment['reason'];
      member: Member;
      size: RequestSize;
    },
    config: FlightConfig,
  ) {
    this.#clock = modules.clock;
    this.#gate = modules.gate;
    this.#watch = modules.watch;
    this.piece = what.piece;
    this.length = what.length;
    this.reason = what.reason;
    this.member = what.member;
    this.#size = what.size;
    this.source = what.member.source;
    this.#patience_ms = config.first_byte_timeout_ms;
    this.meter = new FlightMeter(modules.clock.now_ms(), config);
  }

  get aborted(): boolean {
    return this.#end.signal.aborted;
  }

  /** It stalled, and nothing comes from its source. */
  isSilent(now_ms: number): boolean {
    const source_ms = this.source.standing.heard_ms;
    return this.stalled !== undefined && this.meter.verdict(now_ms, source_ms) === 'silent';
  }

  /** As the planner sees it. */
  planned(): PlanFlight {
    const eta_ms = this.meter.eta_ms(this.#clock.now_ms(), this.length);
    const { piece, member, stalled } = this;
    return { piece, source: member.id, stalled: stalled !== undefined, eta_ms };
  }

  /** Ends it: the piece is here from elsewhere, or nobody wants it. */
  abort(): void {
    this.#end.abort(new DaemonError('cancelled', 'the piece is not wanted from this source'));
  }

  /**
   * Fetches. Rejects at once after `abort`, even when the source does not listen to its signal, so that a hung source never holds a
   * slot. `onBytes` gets newly received bytes, never more than `length` in all.
   */
  async fetch(hooks: {
    onBytes: (bytes: number) => void;
    onStall: (kind: StallKind) => void;
  }): Promise<UnverifiedPiece> {
    const { standing } = this.source;
    const { signal } = this.#end;
    // Small ones do not count against its depth.
    const end = this.#size === 'small' ? undefined : standing.begin();
    const unwatch = this.#watch.watch({
      meter: this.meter,
      standing,
      onStall: (kind) => {
        this.stalled = kind;
        hooks.onStall(kind);
      },
    });
    const onProgress = (received: number): void => {
      if (signal.aborted) return;
      const grown = this.meter.progress(this.#clock.now_ms(), Math.min(received, this.length));
      if (grown === 0) return;
      hooks.onBytes(grown);
    };
    try {
      const asking = { signal, onProgress, patience_ms: this.#patience_ms };
      const fetching = this.source.fetch(this.piece, this.length, asking);
      const piece = await untilAborted(fetching, signal);
      onProgress(piece.bytes.length);
      return piece;
    } finally {
      unwatch();
      end?.();
      this.#gate.freed();
    }
  }
}
