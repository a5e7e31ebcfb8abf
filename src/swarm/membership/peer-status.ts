import type { Clock } from '../../base/clock.ts';
import type { ExclusionReason } from '../../piece/exclusion.ts';
import type { PeerId } from '../ground/peer-id.ts';
import type { Standings } from './standing.ts';
import type { PeerSession } from './peer-session.ts';

/** One connected peer as an operator sees it. `host` and `zone` are the peer's own words. */
export type PeerStatus = {
  readonly id: PeerId;
  readonly addresses: readonly string[];
  readonly transport: 'quic' | 'tcp';
  readonly zone: string;
  readonly host: string;
  readonly software: string;
  /** greeting = admitted, inventory not complete yet; then ready, or why it is not asked or asked last now. */
  readonly state: 'greeting' | 'ready' | ExclusionReason;
  readonly disk_full: boolean;
  readonly load: number;
  readonly received_bytes: number;
  readonly sent_bytes: number;
  readonly rate_bytes_per_second: number;
  readonly blobs: number;
  readonly connected_ms: number;
  /** Time since it last took bytes of ours; Infinity = never. */
  readonly served_ms_ago: number;
};

/** Reads a session and its standing. */
export function peerStatus(
  session: PeerSession,
  standings: Standings,
  clock: Pick<Clock, 'now_ms'>,
): PeerStatus {
  const standing = standings.of(session.id);
  const unwanted = standing.excluded()?.reason ?? standing.demoted();
  return {
    id: session.id,
    addresses: [session.connection.remoteAddr.toString(), ...session.addresses],
    transport: session.transport,
    zone: session.hello?.zone ?? '',
    host: session.hello?.host ?? '',
    software: session.hello?.software ?? '',
    state: session.synced ? (unwanted ?? 'ready') : 'greeting',
    disk_full: session.state.disk_full,
    load: session.state.load,
    received_bytes: session.received_bytes,
    sent_bytes: session.sent_bytes,
    rate_bytes_per_second: Math.round((standing.rate ?? 0) * 1000),
    blobs: session.prefixes.size,
    connected_ms: Math.round(clock.now_ms() - session.since_ms),
    served_ms_ago: clock.now_ms() - (session.served_ms ?? -Infinity),
  };
}
