import { createHash } from 'node:crypto';
import type { Clock } from '../../src/base/clock.ts';
import { DaemonError } from '../../src/base/errors.ts';
import type { Digest } from '../../src/oci/digest.ts';
import type { SourceFault } from '../../src/piece/exclusion.ts';
import { PIECE_BYTES, pieceCount, pieceOffset } from '../../src/piece/layout.ts';
import type { PieceList } from '../../src/piece/piece-list.ts';
import type { FaultFacts, PieceSource, UnverifiedPiece } from '../../src/piece/source.ts';
import { createSwarmMetrics } from '../../src/swarm/metrics.ts';
import type { PeerId } from '../../src/swarm/ground/peer-id.ts';
import type { HostStanding } from '../../src/piece/host-standing.ts';
import { Standings } from '../../src/swarm/membership/standing.ts';
import { MemoryRegister } from './memory-register.ts';

/** What a scripted source does with one request: `drip` = 1 KB per second, `deaf` = silent and does not listen to its signal. */
export type Act =
  | 'serve'
  | 'wrong'
  | 'short'
  | 'silent'
  | 'deaf'
  | 'drip'
  | 'busy'
  | 'gone'
  | 'missing';

export type Script = {
  readonly id?: string;
  readonly kind?: PieceSource['kind'];
  readonly near?: boolean;
  readonly depth?: number;
  /** Until the first byte; 0 = answers at once, without the clock. */
  readonly latency_ms?: number;
  readonly bytes_per_second?: number;
  /** What a busy answer says about when to ask again; nothing, as the first version, when left out. */
  readonly retry_after_ms?: number;
  /** What the `nth` (from 0) request, for piece `index`, gets. */
  readonly act?: (index: number, nth: number) => Act;
  /** What a list request gets; default: the true list. */
  readonly list?: PieceList | Act;
  /** Until a list is answered; as `latency_ms` when left out. */
  readonly list_ms?: number;
};

/** Counts what several sources have in flight together. */
export class Traffic {
  peak_bytes = 0;
  #bytes = 0;

  add(bytes: number): void {
    this.#bytes += bytes;
    this.peak_bytes = Math.max(this.peak_bytes, this.#bytes);
  }
}

/** Standings as the swarm keeps them; sources that share them and an id have one host behind them. */
export function freshStandings(clock: Clock): Standings {
  const metrics = createSwarmMetrics(new MemoryRegister(), { peers: () => 0, announced: () => 0 });
  return new Standings({ clock, metrics }, { ban_ms: 600_000 });
}

/** The true piece list of some bytes. */
export function listOf(digest: Digest, bytes: Uint8Array): PieceList {
  const digests = Array.from({ length: pieceCount(bytes.length) }, (_, i) =>
    createHash('sha256')
      .update(bytes.subarray(pieceOffset(i), pieceOffset(i + 1)))
      .digest(),
  );
  return { digest, size_bytes: bytes.length, digests: Buffer.concat(digests) };
}

/** A source that does what its script says, on a clock of the test's. Remembers requests and blame. */
export class ScriptedSource implements PieceSource {
  readonly id: string;
  readonly kind: PieceSource['kind'];
  readonly near: boolean;
  readonly depth: number;
  readonly standing: HostStanding;
  readonly blames: SourceFault[] = [];
  /** Piece indexes in the order of the requests. */
  readonly requests: number[] = [];
  script: Script;
  in_flight = 0;
  peak_in_flight = 0;
  lists_asked = 0;
  readonly #clock: Clock;
  readonly #digest: Digest;
  readonly #bytes: Uint8Array;
  readonly #traffic: Traffic | undefined;
  readonly #standings: Standings;

  constructor(
    modules: { clock: Clock; traffic?: Traffic; standings?: Standings },
    blob: { digest: Digest; bytes: Uint8Array },
    script: Script = {},
  ) {
    this.#clock = modules.clock;
    this.#traffic = modules.traffic;
    this.#digest = blob.digest;
    this.#bytes = blob.bytes;
    this.script = script;
    this.id = script.id ?? 'a';
    this.#standings = modules.standings ?? freshStandings(modules.clock);
    this.standing = this.#standings.of(this.id as PeerId);
    this.kind = script.kind ?? 'peer';
    this.near = script.near ?? false;
    this.depth = script.depth ?? 2;
  }

  async list(options: { max_pieces: number; signal: AbortSignal }): Promise<PieceList> {
    options.signal.throwIfAborted();
    this.lists_asked++;
    const { list = 'serve' } = this.script;
    if (typeof list !== 'string') return list;
    const { list_ms = 0 } = this.script;
    if (list_ms > 0) await this.#clock.sleep(list_ms, options);
    await this.#open(list, options.signal);
    const own = listOf(this.#digest, this.#bytes);
    if (pieceCount(own.size_bytes) > options.max_pieces) {
      throw new DaemonError('protocol_error', 'the list is too long');
    }
    return own;
  }

  async fetch(
    index: number,
    length: number,
    options: { signal: AbortSignal; onProgress?: (received_bytes: number) => void },
  ): Promise<UnverifiedPiece> {
    options.signal.throwIfAborted();
    const act = this.script.act?.(index, this.requests.length) ?? 'serve';
    this.requests.push(index);
    this.in_flight++;
    this.peak_in_flight = Math.max(this.peak_in_flight, this.in_flight);
    this.#traffic?.add(length);
    let heard = 0;
    const onProgress = (received: number): void => {
      this.standing.heard(received - heard);
      heard = received;
      options.onProgress?.(received);
    };
    try {
      const asked_ms = this.#clock.now_ms();
      await this.#open(act, options.signal);
      this.standing.answered(this.#clock.now_ms() - asked_ms);
      if (act === 'drip') await this.#transfer(1000, length, options.signal, onProgress);
      else if (this.script.bytes_per_second !== undefined) {
        await this.#transfer(this.script.bytes_per_second, length, options.signal, onProgress);
      }
      const start = pieceOffset(index);
      const bytes = this.#bytes.slice(start, start + length - (act === 'short' ? 1 : 0));
      if (act === 'wrong') bytes[0]! ^= 1;
      onProgress(bytes.length);
      return { index, bytes };
    } finally {
      this.in_flight--;
      this.#traffic?.add(-length);
    }
  }

  blame(fault: SourceFault, facts?: FaultFacts): void {
    this.blames.push(fault);
    this.#standings.fault(this.id as PeerId, fault, facts);
  }

  async #open(act: Act, signal: AbortSignal): Promise<void> {
    if (act === 'deaf') await new Promise(() => undefined);
    if (act === 'silent') await this.#clock.sleep(1e9, { signal });
    const { latency_ms = 5 } = this.script;
    if (latency_ms > 0) await this.#clock.sleep(latency_ms, { signal });
    if (act === 'busy') {
      const { retry_after_ms } = this.script;
      throw new DaemonError('unavailable', 'no upload slot', { retry_after_ms });
    }
    if (act === 'missing') throw new DaemonError('not_found', 'not here');
    if (act === 'gone') throw new Error('connection lost');
  }

  async #transfer(
    bytes_per_second: number,
    length: number,
    signal: AbortSignal,
    onProgress: (received_bytes: number) => void,
  ): Promise<void> {
    const step = Math.min(PIECE_BYTES / 8, Math.max(1000, bytes_per_second / 10));
    for (let here = step; here < length; here += step) {
      onProgress(here);
      await this.#clock.sleep((step * 1000) / bytes_per_second, { signal });
    }
  }
}
