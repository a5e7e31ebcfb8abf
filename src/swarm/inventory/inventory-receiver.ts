import type { Stream } from '@libp2p/interface';
import type { Clock } from '../../base/clock.ts';
import { DaemonError } from '../../base/errors.ts';
import type { FrameBody } from '../transport/frame-decoder.ts';
import { FramedStream } from '../transport/framed-stream.ts';
import {
  decodeHello,
  decodeInventoryHeader,
  decodePeers,
  decodeRefusal,
  decodeState,
  type ExchangedPeer,
  type Hello,
  INVENTORY_HEADER_BYTES,
  type InventoryFrameType,
  type PeerState,
  type Refusal,
} from './inventory-protocol.ts';
import { CONTROL_FRAMES_BURST, CONTROL_FRAMES_PER_SECOND } from '../ground/limits.ts';
import { decodePrefixes, type PrefixSet } from './prefix-set.ts';
import { TokenBucket } from '../ground/token-bucket.ts';

/** What a peer's inventory stream leads to. None of these may wait or ask anybody. */
export interface InventoryEvents {
  /** Any frame: the peer lives. */
  onFrame(): void;
  onHello(hello: Hello): void;
  /** The whole inventory is here. */
  onSynced(): void;
  onState(state: PeerState): void;
  onPeers(peers: readonly ExchangedPeer[]): void;
  onRefusal(refusal: Refusal): void;
  onEnd(error: Error): void;
}

/** A peer's half of the inventory, kept in `prefixes`. A peer that floods or breaks the protocol ends it (`protocol_error`). */
export class InventoryReceiver {
  readonly #prefixes: PrefixSet;
  readonly #events: InventoryEvents;
  readonly #bucket: TokenBucket;
  #greeted = false;

  constructor(modules: {
    stream: Stream;
    clock: Clock;
    prefixes: PrefixSet;
    events: InventoryEvents;
  }) {
    this.#prefixes = modules.prefixes;
    this.#events = modules.events;
    this.#bucket = new TokenBucket(modules.clock, {
      per_second: CONTROL_FRAMES_PER_SECOND,
      burst: CONTROL_FRAMES_BURST,
    });
    new FramedStream(modules.stream, {
      header_bytes: INVENTORY_HEADER_BYTES,
      onHeader: (header) => this.#header(header),
      onEnd: (error) => this.#events.onEnd(error),
    });
  }

  #header(header: Uint8Array): FrameBody {
    if (!this.#bucket.tryTake(1)) {
      throw new DaemonError(
        'protocol_error',
        'the peer sends more control frames than are accepted',
      );
    }
    const { type, length } = decodeInventoryHeader(header);
    if (type === undefined) return { length, done: () => this.#events.onFrame() };
    if (!this.#greeted && type !== 'hello' && type !== 'refuse') {
      throw new DaemonError('protocol_error', 'the peer did not begin its inventory with a hello');
    }
    const target = new Uint8Array(length);
    return { length, target, done: () => this.#frame(type, target) };
  }

  #frame(type: InventoryFrameType, body: Uint8Array): void {
    this.#events.onFrame();
    switch (type) {
      case 'hello':
        if (this.#greeted) throw new DaemonError('protocol_error', 'the peer sent a second hello');
        this.#greeted = true;
        return this.#events.onHello(decodeHello(body));
      case 'add':
        return decodePrefixes(body, (p) => this.#prefixes.add(p));
      case 'remove':
        return decodePrefixes(body, (p) => this.#prefixes.delete(p));
      case 'clear':
        return this.#prefixes.clear();
      case 'synced':
        return this.#events.onSynced();
      case 'ping':
        return;
      case 'state':
        return this.#events.onState(decodeState(body));
      case 'peers':
        return this.#events.onPeers(decodePeers(body));
      case 'refuse':
        return this.#events.onRefusal(decodeRefusal(body));
    }
  }
}
