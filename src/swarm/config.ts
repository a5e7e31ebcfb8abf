import { MAX_PREFIXES } from './ground/limits.ts';

/** Settings of the swarm. Plain data, parsed and frozen by the config room. */
export type SwarmConfig = {
  /** Where the identity file lies. */
  readonly state_dir: string;
  /** One or two cluster keys, one per line, readable by the owner only. Without it the swarm refuses to start. */
  readonly cluster_key_file: string;
  /** IP addresses to listen on; `0.0.0.0` and `::` mean all. */
  readonly listen: readonly string[];
  /** One port for QUIC (UDP) and TCP. 0 = any free one. */
  readonly port: number;
  /** Multiaddrs told to peers in place of the listening ones, for hosts behind address translation. Empty = as listening. */
  readonly announce: readonly string[];
  readonly quic: boolean;
  readonly tcp: boolean;
  /** `host:port` or multiaddr of hosts to begin with. Names are resolved at each try. */
  readonly bootstrap: readonly string[];
  /** Hosts with the same zone label are asked before others. Empty = no zone. */
  readonly zone: string;
  /** Shown to operators of other hosts; at most 64 characters are sent. */
  readonly host_name: string;
  readonly software_version: string;
  readonly max_peers: number;
  /** Hosts dialled at a time. */
  readonly max_parallel_dials: number;
  /** Of one host with all its addresses. With 5 s a silent host still gets a second try within ten seconds. */
  readonly dial_timeout_ms: number;
  /** First and largest wait between tries of one host; doubles, with jitter. */
  readonly min_backoff_ms: number;
  readonly max_backoff_ms: number;
  readonly ping_interval_ms: number;
  /** A peer that is silent this long is dead. */
  readonly peer_timeout_ms: number;
  /** First ban; doubles with each further one, up to 64 times. */
  readonly ban_ms: number;
  /** Pieces that leave this host at once, and askers that may wait for a slot before "busy". */
  readonly upload_slots: number;
  readonly max_waiting_uploads: number;
  /** 0 = no limit. */
  readonly max_upload_bytes_per_second: number;
  readonly max_prefixes_per_peer: number;
};

/** Settings that no key of the configuration file turns; the defaults of all others stand in the config room's schema. */
export const fixedSwarmConfig = {
  announce: [],
  // A silent host keeps its place for 5 of every 25 s: more than a hundred of them leave room for the others.
  max_parallel_dials: 32,
  min_backoff_ms: 1000,
  // A healed partition is noticed within half a minute, jitter included.
  max_backoff_ms: 20_000,
  ping_interval_ms: 5000,
  max_waiting_uploads: 16,
  max_prefixes_per_peer: MAX_PREFIXES,
} as const satisfies Partial<SwarmConfig>;
