/** A host of the swarm, by the libp2p peer id it proved. */
export type PeerId = string & { readonly __brand: 'PeerId' };
