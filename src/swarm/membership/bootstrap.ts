import type { Multiaddr } from '@multiformats/multiaddr';
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
import { dialFailure } from './dial-failure.ts';
import { DialTargets, type Target } from './dial-targets.ts';
import type { ExchangedPeer } from '../inventory/inventory-protocol.ts';
import type { Mesh } from './mesh.ts';
import type { ConnectResult, SwarmMetrics } from '../metrics.ts';
import type { PeerId } from '../ground/peer-id.ts';
import { PerMinute } from '../ground/per-minute.ts';

/** Learnt addresses are dropped after this many tries without success; static ones never. */
const MAX_LEARNT_FAILURES = 8;
/** Longest wait for a name, in ms. */
const RESOLVE_DEADLINE_MS = 3000;

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
 * Keeps the mesh complete: dials the configured addresses and those peers tell us of, with exponential backoff and
 * jitter per address and a bound on dials at a time. Being alone is a normal state. What peers tell is only remembered
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

  /** A connected peer is gone: try it again soon. */
  lost(peer: PeerId): void {
    const { clock, random } = this.#modules;
    for (const target of this.#targets.all()) {
      if (target.peer !== peer || target.isDialling) continue;
      target.failures = 0;
      target.due_ms = clock.now_ms() + (this.#config.min_backoff_ms * (1 + random())) / 2;
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

  #startDue(signal: AbortSignal): void {
    if (signal.aborted) return;
    const now_ms = this.#modules.clock.now_ms();
    const own = this.#modules.own.current();
    for (const target of this.#targets.all()) {
      if (this.#dialling >= this.#config.max_parallel_dials) return;
      if (target.isDialling || target.due_ms > now_ms || this.#isConnected(target)) continue;
      if (this.#modules.mesh.size >= this.#config.max_peers) return;
      const addresses = target.addresses.filter((address) => !own.has(endpointOf(address)));
      if (addresses.length === 0 || target.peer === this.#modules.self) {
        // Ours: nothing to dial, looked at again now and then because interfaces change.
        target.last = 'self';
        target.due_ms = now_ms + this.#config.max_backoff_ms;
        continue;
      }
      const excluded = target.peer && this.#modules.mesh.excluded(target.peer);
      if (excluded !== undefined) {
        target.last = excluded.reason;
        target.due_ms = now_ms + this.#config.min_backoff_ms;
        continue;
      }
      void this.#dial(target, addresses, signal);
    }
  }

  /** Tries the addresses of one target in order. Never rejects. */
  async #dial(target: Target, addresses: readonly Multiaddr[], signal: AbortSignal): Promise<void> {
    target.isDialling = true;
    this.#dialling += 1;
    this.#round.tried += 1;
    let result: ConnectResult = 'unreachable';
    for (const address of addresses) {
      const deadline_ms = this.#config.dial_timeout_ms / Math.min(addresses.length, 2);
      result = await this.#dialOne(target, address, deadline_ms, signal);
      if (signal.aborted) return;
      if (!isWorthAnotherAddress(result)) break;
    }
    target.last = result;
    target.isDialling = false;
    this.#dialling -= 1;
    this.#settle(target, result);
    this.#wake();
  }

  async #dialOne(
    target: Target,
    address: Multiaddr,
    deadline_ms: number,
    signal: AbortSignal,
  ): Promise<ConnectResult> {
    const { mesh, clock, metrics, own, logger } = this.#modules;
    let result: ConnectResult;
    try {
      const deadline = AbortSignal.any([signal, clock.timeout(deadline_ms)]);
      const outcome = await within(mesh.connect(address, deadline), deadline);
      result = outcome.result;
      if (result === 'ok' || result === 'duplicate') target.peer = outcome.peer;
    } catch (error) {
      result = dialFailure(error);
      logger.debug({ address: address.toString(), result, err: error }, 'dial failed');
    }
    if (result === 'self') own.learn(address);
    if (!signal.aborted) metrics.dials.inc({ result });
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
    const { min_backoff_ms, max_backoff_ms } = this.#config;
    const full_ms = Math.min(max_backoff_ms, min_backoff_ms * 2 ** Math.max(0, failures - 1));
    // Half fixed, half random: hosts that failed together do not come back together.
    return (full_ms * (1 + this.#modules.random())) / 2;
  }

  async #untilDue(signal: AbortSignal): Promise<void> {
    const { clock } = this.#modules;
    const now_ms = clock.now_ms();
    const isFull =
      this.#dialling >= this.#config.max_parallel_dials ||
      this.#modules.mesh.size >= this.#config.max_peers;
    const waiting = isFull
      ? []
      : this.#targets.all().filter((t) => !t.isDialling && !this.#isConnected(t));
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

/** Another address of the same machine may help when the path failed, never when the machine said no. */
function isWorthAnotherAddress(result: ConnectResult): boolean {
  return ['timeout', 'refused', 'unreachable', 'gone', 'self', 'wrong_peer'].includes(result);
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
