import { type Multiaddr, multiaddr } from '@multiformats/multiaddr';
import { type DialTarget, peerOf, transportOf, type Transports } from './addresses.ts';
import type { ExclusionReason } from '../../piece/exclusion.ts';
import type { ExchangedPeer } from '../inventory/inventory-protocol.ts';
import { MAX_TARGETS } from '../ground/limits.ts';
import type { ConnectResult } from '../metrics.ts';
import type { PeerId } from '../ground/peer-id.ts';

/** One machine to be connected to, and how that went so far. */
export type Target = {
  readonly key: string;
  /** From the configuration: never forgotten while its name leads there. */
  readonly isStatic: boolean;
  /** The bootstrap entry it stems from; empty for a learnt one. */
  readonly entry: string;
  addresses: readonly Multiaddr[];
  /** Known from the peer exchange, or since the first connection. */
  peer: PeerId | undefined;
  failures: number;
  due_ms: number;
  isDialling: boolean;
  /** How the last dial ended, or why there was none. */
  last: ConnectResult | ExclusionReason | undefined;
};

/** The machines the bootstrap knows of, configured or learnt. Bounded: learnt ones are refused beyond the limit. */
export class DialTargets {
  readonly #targets = new Map<string, Target>();
  readonly #self: string;
  readonly #transports: Transports;

  constructor(modules: { readonly self: string; readonly transports: Transports }) {
    this.#self = modules.self;
    this.#transports = modules.transports;
  }

  get size(): number {
    return this.#targets.size;
  }

  all(): Target[] {
    return [...this.#targets.values()];
  }

  forget(target: Target): void {
    this.#targets.delete(target.key);
  }

  /** Takes over what a bootstrap entry stands for now, and forgets what its name no longer leads to. */
  merge(entry: string, found: readonly DialTarget[], due_ms: number): void {
    const keys = new Set(found.map((target) => target.key));
    for (const target of this.all()) {
      if (target.entry === entry && !keys.has(target.key) && !target.isDialling)
        this.forget(target);
    }
    for (const { key, addresses } of found) {
      if (this.#targets.has(key)) continue;
      this.#add(key, addresses, {
        isStatic: true,
        entry,
        peer: addresses[0] && peerOf(addresses[0]),
        due_ms,
      });
    }
  }

  /** Adds or refreshes what a peer tells of others. Its own id and addresses we cannot dial do not count. */
  learn(peers: readonly ExchangedPeer[], due_ms: number): void {
    for (const peer of peers) {
      const addresses = peer.id === this.#self ? [] : this.#dialable(peer);
      if (addresses.length === 0) continue;
      const known = this.#targets.get(peer.id);
      if (known !== undefined) known.addresses = addresses;
      else
        this.#add(peer.id, addresses, {
          isStatic: false,
          entry: '',
          peer: peer.id as PeerId,
          due_ms,
        });
    }
  }

  #add(
    key: string,
    addresses: readonly Multiaddr[],
    of: Pick<Target, 'isStatic' | 'entry' | 'peer' | 'due_ms'>,
  ): void {
    if (this.#targets.size >= MAX_TARGETS) return;
    const fresh = { failures: 0, isDialling: false, last: undefined };
    this.#targets.set(key, { ...of, ...fresh, key, addresses });
  }

  /** The peer's addresses with its id, so that a stranger at one of them is noticed. */
  #dialable(peer: ExchangedPeer): Multiaddr[] {
    return peer.addresses
      .map((text) => multiaddr(text))
      .filter((address) => this.#transports[transportOf(address)])
      .map((address) =>
        peerOf(address) === undefined ? multiaddr(`${address.toString()}/p2p/${peer.id}`) : address,
      )
      .filter((address) => peerOf(address) === peer.id);
  }
}
