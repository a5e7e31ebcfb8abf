/**
 * The border of the swarm room, seen from the roof. libp2p, its native transport and a good deal of our own code run inside it; an
 * error that nobody caught there must cost the swarm and not the content service. Node keeps, for every callback, timer and
 * promise, the asynchronous context it was made in, and shows it to the handlers of uncaught exceptions and unhandled rejections:
 * whatever a life of the swarm begins carries that life with it.
 */
import { AsyncLocalStorage } from 'node:async_hooks';
import { DaemonError } from './base/errors.ts';
import type { Demotion, Exclusion, SourceFault } from './piece/exclusion.ts';
import type { FaultFacts, PieceSource } from './piece/source.ts';
import type { RequestSize, SourceStanding } from './piece/standing.ts';
import type { SharedBlobs } from './store/blob-store.ts';

const inside = new AsyncLocalStorage<SwarmLife | undefined>();

/**
 * For the handlers of errors that nobody caught: true when the swarm is where it happened, and takes it. False: it is a defect of
 * the process.
 */
export function takenBySwarm(error: unknown): boolean {
  const life = inside.getStore();
  life?.fail(error);
  return life !== undefined;
}

/** One life of the swarm, from its start to its end. What it began is marked as its own, also after its end. */
export class SwarmLife {
  readonly #end = new AbortController();
  readonly #failed = Promise.withResolvers<never>();
  readonly #onEnd = new Set<(error: Error) => void>();

  constructor() {
    // Somebody looks at it, or the life is over already.
    this.#failed.promise.catch(() => undefined);
  }

  /** Aborts when the life ends. */
  get signal(): AbortSignal {
    return this.#end.signal;
  }

  /** Rejects with the first error that nobody caught inside; never resolves. */
  get failed(): Promise<never> {
    return this.#failed.promise;
  }

  /** Ends this life's hopes; its owner closes it. Idempotent. */
  fail(error: unknown): void {
    this.#failed.reject(error);
  }

  /** Every wait at the border ends now. Idempotent. */
  end(): void {
    if (this.#end.signal.aborted) return;
    const error = new DaemonError('internal', 'the swarm has ended');
    this.enter(() => this.#end.abort(error));
    for (const listener of [...this.#onEnd]) listener(error);
    this.#onEnd.clear();
  }

  /** Runs `work` inside: what it begins belongs to this life. */
  enter<T>(work: () => T): T {
    return inside.run(this, work);
  }

  /** The same for calls that must not fail: an error is this life's, and the caller gets `otherwise`. */
  guard<T>(work: () => T, otherwise: T): T {
    try {
      return this.enter(work);
    } catch (error) {
      this.fail(error);
      return otherwise;
    }
  }

  /** As `guard`, for calls that read or note numbers in memory and begin nothing. */
  ask<T>(work: () => T, otherwise: T): T {
    try {
      return work();
    } catch (error) {
      this.fail(error);
      return otherwise;
    }
  }

  /** A wait for something inside, as the caller outside sees it: it ends with the signal and with this life, whatever the swarm does. */
  wait<T>(signal: AbortSignal, begin: (signal: AbortSignal) => Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      const inner = new AbortController();
      // Listeners of the swarm are called inside, so that an error of theirs is the swarm's.
      const abort = (reason: unknown): void => this.guard(() => inner.abort(reason), undefined);
      const onAbort = (): void => abort(signal.reason);
      const onEnd = (error: Error): void => {
        abort(error);
        reject(error);
      };
      if (signal.aborted) onAbort();
      else signal.addEventListener('abort', onAbort, { once: true });
      if (this.#end.signal.aborted) onEnd(this.#end.signal.reason as Error);
      else this.#onEnd.add(onEnd);
      this.enter(async () => begin(inner.signal))
        .then(resolve, reject)
        .finally(() => {
          signal.removeEventListener('abort', onAbort);
          this.#onEnd.delete(onEnd);
        });
    });
  }

  /** A source of the swarm as the pull room gets it. */
  source(source: PieceSource): PieceSource {
    return new LivingSource(this, source);
  }

  /** The store as the swarm gets it: the store's own work is none of the swarm's, and the swarm's listeners never fail the store. */
  store(store: SharedBlobs): SharedBlobs {
    return {
      shared: () => outside(() => store.shared()),
      onShared: (listener) =>
        outside(() => store.onShared((event) => this.guard(() => listener(event), undefined))),
      pieceList: (digest) => outside(() => store.pieceList(digest)),
      readPiece: (digest, index, options) => outside(() => store.readPiece(digest, index, options)),
    };
  }
}

/** Runs what belongs to another room, for calls that come out of the swarm. */
export function outside<T>(work: () => T): T {
  return inside.run(undefined, work);
}

class LivingSource implements PieceSource {
  readonly #life: SwarmLife;
  readonly #source: PieceSource;
  readonly id: string;
  readonly kind: PieceSource['kind'];
  readonly near: boolean;
  readonly depth: number;
  readonly standing: SourceStanding;

  constructor(life: SwarmLife, source: PieceSource) {
    this.#life = life;
    this.#source = source;
    this.id = source.id;
    this.kind = source.kind;
    this.near = source.near;
    this.depth = source.depth;
    this.standing = new LivingStanding(life, source.standing);
  }

  list({
    signal,
    ...options
  }: Parameters<PieceSource['list']>[0]): ReturnType<PieceSource['list']> {
    return this.#life.wait(signal, (inner) => this.#source.list({ ...options, signal: inner }));
  }

  fetch(
    index: number,
    length: number,
    { signal, onProgress, ...options }: Parameters<PieceSource['fetch']>[2],
  ): ReturnType<PieceSource['fetch']> {
    return this.#life.wait(signal, (inner) =>
      this.#source.fetch(index, length, {
        ...options,
        signal: inner,
        ...(onProgress !== undefined && {
          onProgress: (received_bytes) => outside(() => onProgress(received_bytes)),
        }),
      }),
    );
  }

  blame(fault: SourceFault, facts?: FaultFacts): void {
    // Nobody is blamed for the end of our own swarm.
    if (this.#life.signal.aborted) return;
    this.#life.guard(() => this.#source.blame(fault, facts), undefined);
  }
}

/** When the swarm cannot even say how a host stands, that host is not asked any more. */
const UNKNOWN: Exclusion = { reason: 'gone', until_ms: Number.POSITIVE_INFINITY };

/** The standing of a peer as the pull room gets it: an error in there is the swarm's, too. */
class LivingStanding implements SourceStanding {
  readonly #life: SwarmLife;
  readonly #of: SourceStanding;

  constructor(life: SwarmLife, of: SourceStanding) {
    this.#life = life;
    this.#of = of;
  }

  get in_flight(): number {
    return this.#life.ask(() => this.#of.in_flight, 0);
  }

  get rate(): number | undefined {
    return this.#life.ask(() => this.#of.rate, undefined);
  }

  get first_byte_ms(): number | undefined {
    return this.#life.ask(() => this.#of.first_byte_ms, undefined);
  }

  get heard_ms(): number {
    return this.#life.ask(() => this.#of.heard_ms, Number.NEGATIVE_INFINITY);
  }

  get received_bytes(): number {
    return this.#life.ask(() => this.#of.received_bytes, 0);
  }

  get busy_streak(): number {
    return this.#life.ask(() => this.#of.busy_streak, 0);
  }

  excluded(size?: RequestSize): Exclusion | undefined {
    return this.#life.ask(() => this.#of.excluded(size), UNKNOWN);
  }

  demoted(): Demotion | undefined {
    return this.#life.ask(() => this.#of.demoted(), undefined);
  }

  begin(): () => void {
    const end = this.#life.ask(() => this.#of.begin(), undefined);
    return () => this.#life.ask(() => end?.(), undefined);
  }

  stalling(): void {
    this.#life.ask(() => this.#of.stalling(), undefined);
  }

  delivered(): void {
    this.#life.ask(() => this.#of.delivered(), undefined);
  }
}
