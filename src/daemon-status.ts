import type { Clock } from './base/clock.ts';
import type { Config } from './config/schema.ts';
import type { ContainerdCalls } from './content/containerd-calls.ts';
import type { DaemonStatus } from './control/service.ts';
import type { Conditions } from './ops/conditions.ts';
import type { Wiring } from './host/wiring-watch.ts';
import type { Readiness } from './ops/endpoint.ts';
import { residentBytes } from './ops/process-metrics.ts';
import type { CounterTotals } from './ops/register.ts';
import type { Pulls } from './pull/pulls.ts';
import type { LocalStore } from './store/local-store.ts';
import type { SwarmSupervisor } from './swarm-supervisor.ts';

/** A peer that asked for something within this time counts as served. */
const SERVED_WITHIN_MS = 60_000;

type StatusModules = {
  readonly clock: Clock;
  readonly store: Pick<LocalStore, 'usage' | 'lost'>;
  readonly pulls: Pick<Pulls, 'status'>;
  /** Undefined when the configuration turns it off. */
  readonly swarm: Pick<SwarmSupervisor, 'status'> | undefined;
  readonly conditions: Pick<Conditions, 'list'>;
  readonly totals: CounterTotals;
  readonly calls: Pick<ContainerdCalls, 'count' | 'last'>;
  readonly wiring: () => Wiring;
  readonly readiness: () => Readiness;
  readonly version: string;
  readonly started_ms: number;
};

/** Joins what the rooms know into the answer of the control door. From memory. */
export function daemonStatus(modules: StatusModules, config: Config): DaemonStatus {
  const { clock, store, pulls, totals, readiness } = modules;
  const { state, reason = '' } = readiness();
  const usage = store.usage();
  const lost = [...store.lost()];
  return {
    version: modules.version,
    state,
    reason,
    uptimeSeconds: Math.floor((clock.now_ms() - modules.started_ms) / 1000),
    pid: process.pid,
    residentMemoryBytes: residentBytes(),
    swarm: swarmStatus(modules.swarm?.status(), config),
    blobs: {
      ownedCount: usage.owned_count,
      ownedBytes: usage.owned_bytes,
      cacheCount: usage.cache_count,
      cacheBytes: usage.cache_bytes,
      cacheMaxBytes: config.store.cache_max_bytes,
      lostCount: lost.length,
      lost: lost.map(({ digest, size_bytes }) => ({ digest, sizeBytes: size_bytes })),
    },
    containerd: containerdStatus(modules),
    traffic: {
      receivedFromPeersBytes: totals.total('pull_bytes_total'),
      writtenByContainerdBytes: totals.total('content_written_bytes_total'),
      servedToPeersBytes: totals.total('swarm_uploaded_bytes_total'),
    },
    transfers: pulls.status().map((pull) => ({
      digest: pull.digest,
      sizeBytes: pull.size_bytes,
      receivedBytes: pull.progress_bytes,
      state: pull.state,
      ageMs: Math.round(pull.age_ms),
      sources: pull.sources.map(({ id, bytes }) => ({ source: id, bytes })),
    })),
    conditions: modules.conditions.list().map(({ cause, what, mend, since_ms }) => ({
      cause,
      what,
      mend: [...mend],
      sinceSeconds: Math.floor((clock.now_ms() - since_ms) / 1000),
    })),
  };
}

function containerdStatus({ calls, wiring, clock }: StatusModules): DaemonStatus['containerd'] {
  const { count, last } = calls;
  return {
    ...wiring(),
    calls: count,
    lastCallMsAgo: last === undefined ? 0 : Math.round(clock.now_ms() - last.at_ms),
    lastCallMethod: last?.method ?? '',
    lastCallNamespace: last?.namespace ?? '',
  };
}

function swarmStatus(
  status: ReturnType<SwarmSupervisor['status']>,
  config: Config,
): DaemonStatus['swarm'] {
  const { zone } = config.swarm;
  if (status === undefined) {
    return {
      enabled: false,
      peerId: '',
      zone,
      listenAddresses: [],
      knownPeers: 0,
      connectedPeers: 0,
      holdingPeers: 0,
      servedPeers: 0,
      peers: [],
      bootstrap: [],
      bans: [],
      uptimeSeconds: 0,
    };
  }
  return {
    enabled: true,
    peerId: status.id,
    zone,
    listenAddresses: [...status.listen],
    knownPeers: status.addresses.filter((a) => a.result !== 'self').length,
    connectedPeers: status.peers.length,
    holdingPeers: status.peers.filter((p) => p.blobs > 0).length,
    servedPeers: status.peers.filter((p) => p.served_ms_ago < SERVED_WITHIN_MS).length,
    peers: status.peers.map((peer) => ({
      peerId: peer.id,
      address: peer.addresses[0] ?? '',
      transport: peer.transport,
      zone: peer.zone,
      state: peer.state,
      inventoryBlobs: peer.blobs,
      receivedBytes: peer.received_bytes,
      sentBytes: peer.sent_bytes,
      receiveBytesPerSecond: peer.rate_bytes_per_second,
    })),
    bootstrap: status.addresses.map(({ address, result }) => ({
      address,
      state:
        result === 'connected' || result === 'self'
          ? result
          : result === 'pending'
            ? 'waiting'
            : 'failed',
      reason: ['connected', 'self', 'pending'].includes(result) ? '' : result,
    })),
    bans: status.bans.map(({ id, reason, expires_in_ms }) => ({
      peerId: id,
      reason,
      remainingSeconds: Math.ceil(expires_in_ms / 1000),
    })),
    uptimeSeconds: Math.floor(status.uptime_ms / 1000),
  };
}
