import type { Connection, Stream } from '@libp2p/interface';
import type { Clock } from '../../base/clock.ts';
import { DaemonError, hasCode } from '../../base/errors.ts';
import type { Logger } from '../../ops/logger.ts';
import { admitAsDialer, admitAsListener } from './admission.ts';
import type { ClusterKeys } from './cluster-key.ts';
import {
  ADMISSION_DEADLINE_MS,
  ADMISSION_PROTOCOL,
  MAX_PENDING_ADMISSIONS,
} from '../ground/limits.ts';
import type { ConnectResult, SwarmMetrics } from '../metrics.ts';
import type { PeerId } from '../ground/peer-id.ts';
import { PerMinute } from '../ground/per-minute.ts';

/** Time a refusal gets to reach the peer before the connection is cut, in ms. */
const FAREWELL_MS = 500;
/** Time our connection to a peer has left for its admission once another one to the same peer is ready for its own, in ms. */
const RIVAL_MS = 500;

type Pending = {
  readonly connection: Connection;
  readonly signal: AbortSignal;
  readonly stop: AbortController;
  readonly outcome: PromiseWithResolvers<ConnectResult>;
  begun: boolean;
};

/** What the gate asks and tells the mesh. */
interface GateEvents {
  /** A reason to refuse the connection before any proof, or undefined. */
  precheck(connection: Connection): ConnectResult | undefined;
  /** The peer has proved the key: its streams are to be served. */
  onProved(connection: Connection): void;
  /** Both have: our streams may be opened. */
  onAdmitted(connection: Connection): void;
}

export type GateModules = {
  readonly keys: ClusterKeys;
  /** Own peer id. */
  readonly self: string;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly metrics: Pick<SwarmMetrics, 'admissions'>;
  readonly events: GateEvents;
};

/**
 * Lets every new connection prove the cluster key within 2 s and closes it otherwise. Until then it counts as a
 * stranger: the mesh does not know it and resets whatever it opens.
 */
export class AdmissionGate {
  readonly #modules: GateModules;
  readonly #pending = new Map<Connection, Pending>();
  readonly #outcomes = new WeakMap<Connection, Promise<ConnectResult>>();
  readonly #mayLog: PerMinute;

  constructor(modules: GateModules) {
    this.#modules = modules;
    this.#mayLog = new PerMinute(modules.clock);
  }

  /** True while a connection with the peer is on its way in. */
  isPending(peer: PeerId): boolean {
    return [...this.#pending.values()].some((p) => p.connection.remotePeer.toString() === peer);
  }

  /** How the connection's admission ended or will end. Never rejects. */
  outcome(connection: Connection): Promise<ConnectResult> {
    return this.#outcomes.get(connection) ?? Promise.resolve('gone');
  }

  /** A connection has finished its encrypted handshake. */
  open(connection: Connection): void {
    const { clock, events } = this.#modules;
    const refusal =
      events.precheck(connection) ??
      (this.#pending.size >= MAX_PENDING_ADMISSIONS ? 'full' : undefined);
    const outcome = Promise.withResolvers<ConnectResult>();
    this.#outcomes.set(connection, outcome.promise);
    if (refusal !== undefined) {
      this.#modules.metrics.admissions.inc({ result: refusal });
      outcome.resolve(refusal);
      this.#refuse(connection, refusal);
      return;
    }
    const stop = new AbortController();
    const signal = AbortSignal.any([clock.timeout(ADMISSION_DEADLINE_MS), stop.signal]);
    const rival = connection.direction === 'outbound' ? this.#outboundTo(connection) : undefined;
    const pending: Pending = { connection, signal, stop, outcome, begun: false };
    this.#pending.set(connection, pending);
    const gone = new DaemonError('unavailable', 'the connection closed during admission');
    connection.addEventListener('close', () => stop.abort(gone));
    signal.addEventListener('abort', () => this.#settle(pending, resultOf(signal.reason)), {
      once: true,
    });
    if (connection.direction === 'outbound') void this.#inTurn(pending, rival);
  }

  /** The last of our connections to the same peer that are on their way in. */
  #outboundTo({ remotePeer }: Connection): Pending | undefined {
    return [...this.#pending.values()].findLast(
      ({ connection: c }) => c.direction === 'outbound' && c.remotePeer.equals(remotePeer),
    );
  }

  /**
   * One admission at a time per peer, for with two at once the peer might keep the one that we give up. The first one has
   * the start, but not for long: the way it took may have closed under it.
   */
  async #inTurn(pending: Pending, rival: Pending | undefined): Promise<void> {
    if (rival !== undefined) {
      const late = this.#modules.clock.timeout(RIVAL_MS);
      late.addEventListener('abort', () => rival.stop.abort(late.reason), { once: true });
      const result = await rival.outcome.promise;
      // The peer may have come in by itself meanwhile.
      const { events } = this.#modules;
      const refusal = result === 'ok' ? 'duplicate' : events.precheck(pending.connection);
      if (refusal !== undefined) this.#settle(pending, refusal);
    }
    if (this.#pending.has(pending.connection)) await this.#dial(pending);
  }

  /**
   * libp2p hides the reason when a connection dies before the dial returns, so the dialler reads the outcome first and
   * closes an outbound one itself; the deadline closes it when nobody waits for it any more.
   */
  #refuse(connection: Connection, refusal: ConnectResult): void {
    const error = new Error(`connection refused: ${refusal}`);
    if (connection.direction === 'inbound') return connection.abort(error);
    this.#modules.clock
      .timeout(ADMISSION_DEADLINE_MS)
      .addEventListener('abort', () => connection.abort(error), { once: true });
  }

  /** The peer opened its admission stream. */
  accept(connection: Connection, stream: Stream): void {
    const pending = this.#pending.get(connection);
    if (pending === undefined || pending.begun || connection.direction === 'outbound') {
      stream.abort(new Error('admission is not expected here'));
      return;
    }
    void this.#converse(pending, stream, () =>
      admitAsListener(stream, {
        ...this.#ends(pending),
        onProved: () => {
          // The connection may have died in the same turn: then there is nobody to serve.
          if (!pending.signal.aborted) this.#modules.events.onProved(connection);
        },
      }),
    );
  }

  async #dial(pending: Pending): Promise<void> {
    try {
      const stream = await pending.connection.newStream(ADMISSION_PROTOCOL, {
        signal: pending.signal,
      });
      await this.#converse(pending, stream, async () => {
        await admitAsDialer(stream, this.#ends(pending));
        pending.signal.throwIfAborted();
        this.#modules.events.onProved(pending.connection);
      });
    } catch (error) {
      this.#settle(pending, resultOf(error));
    }
  }

  async #converse(pending: Pending, stream: Stream, talk: () => Promise<void>): Promise<void> {
    pending.begun = true;
    try {
      await talk();
      pending.signal.throwIfAborted();
      this.#settle(pending, 'ok');
      await stream.close({ signal: this.#modules.clock.timeout(FAREWELL_MS) });
    } catch (error) {
      // After 'ok' only the closing of the stream can fail, and then nothing is left to settle.
      this.#settle(pending, resultOf(error));
    }
  }

  #ends(pending: Pending) {
    const { keys, self } = this.#modules;
    return { keys, self, peer: pending.connection.remotePeer.toString(), signal: pending.signal };
  }

  #settle(pending: Pending, result: ConnectResult): void {
    const { connection } = pending;
    if (!this.#pending.delete(connection)) return;
    this.#modules.metrics.admissions.inc({ result });
    if (result === 'ok') {
      this.#modules.events.onAdmitted(connection);
    } else {
      this.#report(connection, result);
      this.#dismiss(connection, result);
    }
    pending.outcome.resolve(result);
  }

  #dismiss(connection: Connection, result: ConnectResult): void {
    const error = new Error(`not admitted: ${result}`);
    if (result !== 'wrong_key' && result !== 'protocol_version') return connection.abort(error);
    // The other side shall be able to name the reason too.
    connection
      .close({ signal: this.#modules.clock.timeout(FAREWELL_MS) })
      .catch(() => connection.abort(error));
  }

  #report(connection: Connection, result: ConnectResult): void {
    const address = connection.remoteAddr.getComponents()[0]?.value ?? '';
    const facts = { address, peer: connection.remotePeer.toString(), reason: result };
    const isWorthIt = result === 'wrong_key' || result === 'protocol_version';
    if (!isWorthIt) this.#modules.logger.debug(facts, 'connection not admitted');
    else if (this.#mayLog.allows(`${address} ${result}`)) {
      this.#modules.logger.warn(
        facts,
        'peer refused: it does not share our cluster key or version',
      );
    }
  }
}

function resultOf(error: unknown): ConnectResult {
  if (error instanceof Error && error.name === 'TimeoutError') return 'timeout';
  if (hasCode(error, 'permission_denied')) return 'wrong_key';
  if (!hasCode(error, 'protocol_error')) return 'gone';
  return error.facts['reason'] === 'protocol_version' ? 'protocol_version' : 'protocol_error';
}
