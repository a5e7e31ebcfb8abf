import type { Digest } from '../oci/digest.ts';
import type { PeerId } from './ground/peer-id.ts';

/**
 * Who holds which blob. The mesh keeps every neighbour's inventory in memory; beyond the mesh a routed directory can
 * stand behind the same seam. Blobs are announced, never pieces.
 */
export interface PeerDirectory {
  /** We hold the blob from now on. Coalesced; never waits for the network. */
  announce(digest: Digest): void;
  withdraw(digest: Digest): void;
  /** Memory. Peers that announced the blob and are connected, admitted and not banned. */
  find(digest: Digest): readonly PeerId[];
}
