import type { Clock } from '../../base/clock.ts';
import type { FramedStream } from '../transport/framed-stream.ts';
import {
  encodeInventory,
  type ExchangedPeer,
  FEATURES,
  type Hello,
  type HelloFacts,
  type PeerState,
} from './inventory-protocol.ts';
import {
  COALESCE_MS,
  MAX_EXCHANGED_PEERS,
  MAX_PENDING_CHANGES,
  PREFIXES_PER_FRAME,
} from '../ground/limits.ts';
import type { OwnInventory } from './own-inventory.ts';
import { encodePrefixes, type Prefix } from './prefix-set.ts';

/**
 * Our half of the inventory: hello, the whole inventory, then deltas gathered for 50 ms. What waits for a slow peer is
 * bounded: a change replaces an older one of the same blob, and too many of them become "forget all, here is everything".
 */
export class InventorySender {
  readonly #own: OwnInventory;
  readonly #framed: FramedStream;
  readonly #clock: Clock;
  readonly #changes = new Map<string, { readonly prefix: Prefix; readonly added: boolean }>();
  readonly #peers = new Map<string, ExchangedPeer>();
  #resync = true;
  #scheduled = false;
  #busy: Promise<void> = Promise.resolve();

  constructor(modules: { own: OwnInventory; framed: FramedStream; clock: Clock }) {
    this.#own = modules.own;
    this.#framed = modules.framed;
    this.#clock = modules.clock;
  }

  /** Sends hello and the whole inventory, then keeps the peer up to date until the stream ends. */
  start(facts: HelloFacts, state: PeerState): void {
    const stop = this.#own.onChange((prefix, added) => this.#changed(prefix, added));
    this.#framed.signal.addEventListener('abort', stop, { once: true });
    const hello: Hello = { ...facts, features: [...FEATURES] };
    this.#framed.sendNow(encodeInventory('hello', hello));
    this.state(state);
    this.#flush();
  }

  /** Tells the peer of another one, with the next batch. */
  exchange(peer: ExchangedPeer): void {
    this.#peers.set(peer.id, peer);
    this.#schedule();
  }

  ping(): void {
    this.#framed.sendNow(encodeInventory('ping'));
  }

  state(state: PeerState): void {
    this.#framed.sendNow(encodeInventory('state', state));
  }

  #changed(prefix: Prefix, added: boolean): void {
    if (this.#changes.size >= MAX_PENDING_CHANGES) {
      this.#changes.clear();
      this.#resync = true;
    }
    this.#changes.set(`${prefix.high}/${prefix.low}`, { prefix, added });
    this.#schedule();
  }

  #schedule(): void {
    if (this.#scheduled || this.#framed.signal.aborted) return;
    this.#scheduled = true;
    this.#clock.sleep(COALESCE_MS, { signal: this.#framed.signal }).then(
      () => {
        this.#scheduled = false;
        this.#flush();
      },
      () => undefined, // the stream ended: nobody is left to tell
    );
  }

  /** Batches follow one another: a delta must not overtake the inventory it changes. */
  #flush(): void {
    this.#busy = this.#busy
      .then(() => this.#send())
      .catch((error: unknown) => this.#framed.close(error as Error));
  }

  async #send(): Promise<void> {
    const { signal } = this.#framed;
    if (signal.aborted) return;
    if (this.#resync) {
      this.#resync = false;
      this.#changes.clear();
      await this.#framed.send(encodeInventory('clear'), signal);
      await this.#sendPrefixes('add', [...this.#own.prefixes()]);
      await this.#framed.send(encodeInventory('synced'), signal);
    }
    const changes = [...this.#changes.values()];
    this.#changes.clear();
    await this.#sendPrefixes(
      'remove',
      changes.filter((c) => !c.added).map((c) => c.prefix),
    );
    await this.#sendPrefixes(
      'add',
      changes.filter((c) => c.added).map((c) => c.prefix),
    );
    const peers = [...this.#peers.values()];
    this.#peers.clear();
    for (let at = 0; at < peers.length; at += MAX_EXCHANGED_PEERS / 4) {
      // A quarter of the allowed peers per frame keeps the longest possible addresses below the frame limit.
      const batch = peers.slice(at, at + MAX_EXCHANGED_PEERS / 4);
      await this.#framed.send(encodeInventory('peers', batch), signal);
    }
  }

  async #sendPrefixes(type: 'add' | 'remove', prefixes: readonly Prefix[]): Promise<void> {
    for (let at = 0; at < prefixes.length; at += PREFIXES_PER_FRAME) {
      const body = encodePrefixes(prefixes.slice(at, at + PREFIXES_PER_FRAME));
      await this.#framed.send(encodeInventory(type, body), this.#framed.signal);
    }
  }
}
