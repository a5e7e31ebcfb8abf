import type { PeerId } from '@libp2p/interface';
import { peerIdFromString } from '@libp2p/peer-id';
import type { Multiaddr } from '@multiformats/multiaddr';
import { DaemonError } from '../../../base/errors.ts';
import { requireQuicAddress } from './address.ts';

/** The identity the peer of an established connection proved in the TLS handshake, from its native address. */
export function provenPeer(remote: Multiaddr): PeerId {
  const { peer } = requireQuicAddress(remote);
  if (peer === undefined) {
    throw new DaemonError('internal', 'a QUIC connection came without a proven peer id');
  }
  return peerIdFromString(peer);
}

/**
 * Checks that the peer that answered is the one the dialled address names, if it names one. TLS proves only *some*
 * identity; without this comparison whoever answers at the address would pass for the peer. Throws `permission_denied`.
 */
export function assertDialledPeer(dialled: Multiaddr, proven: PeerId): void {
  const { peer } = requireQuicAddress(dialled);
  if (peer === undefined || peerIdFromString(peer).equals(proven)) return;
  throw new DaemonError(
    'permission_denied',
    `the host at ${dialled.toString()} proved to be ${proven.toString()}, another peer; correct the address`,
    { expected: peer, proven: proven.toString() },
  );
}
