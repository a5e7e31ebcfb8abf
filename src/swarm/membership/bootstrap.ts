import type { Multiaddr } from '@multiformats/multiaddr';
import { backoff_ms } from '../../base/backoff.ts';
import type { Clock } from '../../base/clock.ts';
import type { ExclusionReason } from '../../piece/exclusion.ts';
import type { Logger } from '../../ops/logger.ts';
import {
  type BootstrapEntry,
  endpointOf,
  expandBootstrap,
  type OwnAddresses,
  parseBootstrap,
  type Resolve,
  type Transports,
} from './addresses.ts';
import type { SwarmConfig } from '../config.ts';
import { raceAddresses, raceOrder } from './address-race.ts';
import { dialFailure } from './dial-failure.ts';
import { DialTargets, type Target } from './dial-targets.ts';
import type { ExchangedPeer } from '../inventory/inventory-protocol.ts';
import type { Mesh } from './mesh.ts';
import type { CloseReason, ConnectResult, SwarmMetrics } from '../metrics.ts';
import type { PeerId } from '../ground/peer-id.ts';
import { PerMinute } from '../ground/per-minute.ts';

/** Learnt addresses are dropped after this many tries without success; static ones never. */
const MAX_LEARNT_FAILURES = 8;
/** Longest wait for a name, in ms. */
const RESOLVE_DEADLINE_MS = 3000;
/** A peer whose connection is lost is dialled after this time at the latest, in ms. Half of it is jitter: many lose it together. */
const REDIAL_MS = 200;

/** What became of one address, for `status`. */
export type TargetStatus = {
  readonly address: string;
  readonly result: ConnectResult | ExclusionReason | 'connected' | 'pending';
  readonly failures: number;
};

export type BootstrapModules = {
  readonly mesh: Mesh;
  readonly own: OwnAddresses;
  readonly self: string;
  readonly resolve: Resolve;
  /** 0..1, for jitter. */
  readonly random: () => number;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly metrics: SwarmMetrics;
};

/**
 * Keeps the mesh complete: dials the configured hosts and those peers tell us of, with exponential backoff and jitter
 * per host and a bound on hosts dialled at a time. Being alone is a normal state. What peers tell is only remembered
 * here; it never makes us ask anybody.
 */
export class Bootstrap {
  readonly #modules: BootstrapModules;
  readonly #config: SwarmConfig;
  readonly #transports: Transports;
  readonly #entries: readonly {
    readonly entry: BootstrapEntry;
    due_ms: number;
    failures: number;
  }[];
  readonly #targets: DialTargets;
  readonly #unresolved = new Map<string, number>();
  readonly #mayLog: PerMinute;
  #dialling = 0;
  #round = { tried: 0, connected: 0, failed: 0 };
  #wake: () => void = () => undefined;
  #saidAlone = false;

  constructor(modules: BootstrapModules, config: SwarmConfig) {
    this.#modules = modules;
    this.#config = config;
    this.#transports = { quic: config.quic, tcp: config.tcp };
    this.#targets = new DialTargets({ self: modules.self, transports: this.#transports });
    this.#entries = config.bootstrap.map((text) => ({
      entry: parseBootstrap(text),
      due_ms: -Infinity,
      failures: 0,
    }));
    this.#mayLog = new PerMinute(modules.clock);
  }

  /** Peers that another peer knows: kept, and dialled when we are not connected to them. Bounded. */
  learn(peers: readonly ExchangedPeer[]): void {
    this.#targets.learn(peers, this.#modules.clock.now_ms());
    this.#wake();
  }

  /**
   * A connection to a peer has ended. One that broke, fell silent or was replaced is dialled again within 0.2 s, unless
   * there is a new one by then. After an end that was meant we wait as after a failed dial.
   */
  lost(peer: PeerId, reason: CloseReason): void {
    const { clock, random } = this.#modules;
    const isMeant = !['gone', 'silent', 'replaced'].includes(reason);
    const pause_ms = isMeant ? this.#backoff_ms(1) : (REDIAL_MS * (1 + random())) / 2;
    for (const target of this.#targets.all()) {
      if (target.peer !== peer || target.isDialling) continue;
      target.failures = 0;
      target.last = undefined;
      target.due_ms = clock.now_ms() + pause_ms;
    }
    this.#saidAlone = false;
    this.#wake();
  }

  /** Runs until the signal aborts. Never rejects before that. */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await this.#resolveDue(signal);
      this.#startDue(signal);
      await this.#untilDue(signal);
    }
  }

  /**
   * True when each configured entry has led to a peer that is connected now, or to nobody but ourselves. A name may stand
   * for many hosts, one of them is enough; hosts we only heard of may be switched off.
   */
  isWhole(): boolean {
    if (this.#unresolved.size > 0) return false;
    const ways = Object.values(
      Object.groupBy(
        this.#targets.all().filter((target) => target.isStatic),
        (target) => target.entry,
      ),
    );
    return ways.every(
      (targets = []) =>
        targets.some((t) => this.#isConnected(t)) || targets.every((t) => t.last === 'self'),
    );
  }

  status(): TargetStatus[] {
    const targets = this.#targets.all().map(
      (target): TargetStatus => ({
        address: target.isStatic ? target.key : (target.addresses[0]?.toString() ?? target.key),
        result: this.#isConnected(target) ? 'connected' : (target.last ?? 'pending'),
        failures: target.failures,
      }),
    );
    const names = [...this.#unresolved].map(
      ([address, failures]): TargetStatus => ({
        address,
        result: 'unreachable',
        failures,
      }),
    );
    return [...targets, ...names];
  }

  /** Asks for the names again that are due, all at once. */
  async #resolveDue(signal: AbortSignal): Promise<void> {
    const { clock, resolve } = this.#modules;
    const due = this.#entries.filter((e) => e.due_ms <= clock.now_ms());
    await Promise.all(
      due.map(async (item) => {
        const deadline = AbortSignal.any([signal, clock.timeout(RESOLVE_DEADLINE_MS)]);
        try {
          const found = await within(
            expandBootstrap(item.entry, this.#transports, resolve),
            deadline,
          );
          this.#unresolved.delete(item.entry.text);
          item.failures = 0;
          item.due_ms = clock.now_ms() + this.#config.max_backoff_ms;
          this.#targets.merge(item.entry.text, found, clock.now_ms());
        } catch (error) {
          item.failures += 1;
          item.due_ms = clock.now_ms() + this.#backoff_ms(item.failures);
          this.#unresolved.set(item.entry.text, item.failures);
          this.#modules.logger.debug({ address: item.entry.text, err: error }, 'name not resolved');
        }
      }),
    );
  }

  #isConnected(target: Target): boolean {
    return target.peer !== undefined && this.#modules.mesh.has(target.peer);
  }

  /** Hosts that are neither connected nor being dialled, under whatever name. */
  #wanted(): Target[] {
    const targets = this.#targets.all();
    const dialled = new Set(targets.map((t) => (t.isDialling ? t.peer : undefined)));
    const isDialled = (t: Target): boolean =>
      t.isDialling || (t.peer !== undefined && dialled.has(t.peer));
    return targets.filter((t) => !isDialled(t) && !this.#isConnected(t));
  }

  #startDue(signal: AbortSignal): void {
    if (signal.aborted) return;
    const { clock, mesh, own, self } = this.#modules;
    const now_ms = clock.now_ms();
    const ours = own.current();
    const dialled = new Set<PeerId>();
    const due = this.#wanted().filter((target) => target.due_ms <= now_ms);
    // Hosts that were never tried, or answered last time, do not wait behind those known to be silent.
    for (const target of due.sort((a, b) => a.failures - b.failures)) {
      if (this.#dialling >= this.#config.max_parallel_dials) return;
      if (mesh.size >= this.#config.max_peers) return;
      const addresses = target.addresses.filter((address) => !ours.has(endpointOf(address)));
      if (addresses.length === 0 || target.peer === self) {
        // Ours: nothing to dial, looked at again now and then because interfaces change.
        target.last = 'self';
        target.due_ms = now_ms + this.#config.max_backoff_ms;
        continue;
      }
      if (target.peer !== undefined && mesh.isBanned(target.peer)) {
        target.last = 'banned';
        target.due_ms = now_ms + this.#config.min_backoff_ms;
        continue;
      }
      if (target.peer !== undefined) {
        // Its other names lead to the same host.
        if (dialled.has(target.peer)) continue;
        dialled.add(target.peer);
      }
      void this.#dial(target, addresses, signal);
    }
  }

  /** Races the addresses of one host, for at most the host's deadline. Never rejects. */
  async #dial(target: Target, addresses: readonly Multiaddr[], signal: AbortSignal): Promise<void> {
    target.isDialling = true;
    this.#dialling += 1;
    this.#round.tried += 1;
    const result = await raceAddresses(
      raceOrder(addresses),
      (address, cancel) => this.#dialOne(target, address, cancel),
      {
        clock: this.#modules.clock,
        deadline_ms: this.#config.dial_timeout_ms,
        signal,
      },
    );
    if (signal.aborted) return;
    target.last = result;
    target.isDialling = false;
    this.#dialling -= 1;
    this.#settle(target, result);
    this.#wake();
  }

  /** Ends when it is cancelled; that is nobody's failure and counted nowhere. Never rejects. */
  async #dialOne(target: Target, address: Multiaddr, cancel: AbortSignal): Promise<ConnectResult> {
    const { mesh, metrics, own, logger } = this.#modules;
    let result: ConnectResult;
    try {
      const outcome = await within(mesh.connect(address, cancel), cancel);
      result = outcome.result;
      if (result === 'ok' || result === 'duplicate') target.peer = outcome.peer;
    } catch (error) {
      result = dialFailure(error);
      if (cancel.aborted && result !== 'timeout') return result;
      logger.debug({ address: address.toString(), result, err: error }, 'dial failed');
    }
    if (result === 'self') own.learn(address);
    metrics.dials.inc({ result });
    return result;
  }

  #settle(target: Target, result: ConnectResult): void {
    const now_ms = this.#modules.clock.now_ms();
    const isFine = result === 'ok' || result === 'duplicate' || this.#isConnected(target);
    this.#round[isFine ? 'connected' : 'failed'] += 1;
    target.failures = isFine ? 0 : target.failures + 1;
    target.due_ms = now_ms + this.#backoff_ms(target.failures + (isFine ? 1 : 0));
    if (!target.isStatic && target.failures >= MAX_LEARNT_FAILURES) this.#targets.forget(target);
    if (this.#dialling === 0) this.#summarize();
  }

  /** One line when the dials of a round are over, and one at info when the host finds itself alone. */
  #summarize(): void {
    const { logger, mesh } = this.#modules;
    const peers = mesh.size;
    logger.debug({ ...this.#round, peers }, 'bootstrap round over');
    const { tried, connected } = this.#round;
    this.#round = { tried: 0, connected: 0, failed: 0 };
    if (peers > 0 || connected > 0 || tried === 0 || this.#saidAlone) return;
    this.#saidAlone = true;
    if (this.#mayLog.allows('alone')) {
      const reasons = Object.entries(Object.groupBy(this.status(), (t) => t.result)).map(
        ([reason, list]) => `${reason}=${list.length}`,
      );
      logger.info({ addresses: this.#targets.size, reasons }, 'no peer yet, waiting for others');
    }
  }

  #backoff_ms(failures: number): number {
    const { min_backoff_ms: first_ms, max_backoff_ms: longest_ms } = this.#config;
    return backoff_ms({ first_ms, longest_ms }, failures, this.#modules.random);
  }

  async #untilDue(signal: AbortSignal): Promise<void> {
    const { clock } = this.#modules;
    const now_ms = clock.now_ms();
    const isFull =
      this.#dialling >= this.#config.max_parallel_dials ||
      this.#modules.mesh.size >= this.#config.max_peers;
    const waiting = isFull ? [] : this.#wanted();
    const due_ms = Math.min(
      now_ms + this.#config.max_backoff_ms,
      ...waiting.map((t) => t.due_ms),
      ...this.#entries.map((e) => e.due_ms),
    );
    const woken = new AbortController();
    this.#wake = () => woken.abort();
    const wait_ms = Math.max(due_ms - now_ms, 10);
    await clock
      .sleep(wait_ms, { signal: AbortSignal.any([signal, woken.signal]) })
      .catch(() => undefined);
  }
}

/** libp2p and resolvers do not all heed their signal: the wait is ours in any case. */
function within<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const onAbort = (): void => reject(signal.reason as Error);
    if (signal.aborted) return onAbort();
    signal.addEventListener('abort', onAbort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', onAbort));
  });
}
