import type { Config } from './config/schema.ts';
import { fixedSwarmConfig, type SwarmConfig } from './swarm/config.ts';

/** The file's configuration in the swarm room's own words, with what no key turns; `about` is what peers are told of this host. */
export function swarmConfig(
  { swarm, store }: Pick<Config, 'swarm' | 'store'>,
  about: Pick<SwarmConfig, 'host_name' | 'software_version'>,
): SwarmConfig {
  return {
    ...fixedSwarmConfig,
    ...about,
    state_dir: store.state_directory,
    cluster_key_file: swarm.cluster_key_file,
    listen: swarm.listen_addresses,
    port: swarm.listen_port,
    quic: swarm.transports.includes('quic'),
    tcp: swarm.transports.includes('tcp'),
    bootstrap: swarm.bootstrap,
    zone: swarm.zone,
    max_peers: swarm.max_peers,
    dial_timeout_ms: swarm.dial_timeout_ms,
    peer_timeout_ms: swarm.silent_peer_ms,
    ban_ms: swarm.ban_ms,
    upload_slots: swarm.upload_slots,
    max_upload_bytes_per_second: swarm.max_upload_bytes_per_second,
  };
}
