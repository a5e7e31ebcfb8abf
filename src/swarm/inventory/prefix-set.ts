import { createHash, randomBytes } from 'node:crypto';
import { DaemonError } from '../../base/errors.ts';
import { type Digest, hexOf } from '../../oci/digest.ts';
import { PREFIX_BYTES } from '../ground/limits.ts';

/** First 8 bytes of a digest as two 32-bit numbers: enough to tell 10^6 blobs apart, a quarter of the size. */
export type Prefix = { readonly high: number; readonly low: number };

/** The prefix that stands for a digest in inventories. Digests that are not sha256 are hashed first, so all look alike. */
export function prefixOf(digest: Digest): Prefix {
  const hex = digest.startsWith('sha256:')
    ? hexOf(digest)
    : createHash('sha256').update(digest).digest('hex');
  return { high: parseInt(hex.slice(0, 8), 16), low: parseInt(hex.slice(8, 16), 16) };
}

/** Prefixes back to back, big-endian. */
export function encodePrefixes(prefixes: readonly Prefix[]): Uint8Array {
  const bytes = new Uint8Array(prefixes.length * PREFIX_BYTES);
  const view = new DataView(bytes.buffer);
  prefixes.forEach((p, i) => {
    view.setUint32(i * PREFIX_BYTES, p.high);
    view.setUint32(i * PREFIX_BYTES + 4, p.low);
  });
  return bytes;
}

/** Calls `each` for every prefix. `protocol_error` when the length is no multiple of 8. */
export function decodePrefixes(bytes: Uint8Array, each: (prefix: Prefix) => void): void {
  if (bytes.length % PREFIX_BYTES !== 0) {
    throw new DaemonError('protocol_error', 'an inventory frame is not a whole number of prefixes');
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let at = 0; at < bytes.length; at += PREFIX_BYTES) {
    each({ high: view.getUint32(at), low: view.getUint32(at + 4) });
  }
}

/**
 * A set of prefixes in one flat table: 16 bytes per entry where a JavaScript Set takes about 60, so a hundred
 * inventories of 10^4 blobs fit in 25 MB. Open addressing with linear probing; deletion closes the gap.
 */
export class PrefixSet {
  readonly #max: number;
  readonly #seed = randomBytes(4).readInt32LE();
  /** Pairs (high, low); the pair 0,0 marks an empty place. */
  #table = new Uint32Array(32);
  #size = 0;
  /** The one prefix that equals the empty mark. */
  #hasZero = false;

  constructor(config: { readonly max: number }) {
    this.#max = config.max;
  }

  get size(): number {
    return this.#size + (this.#hasZero ? 1 : 0);
  }

  has(p: Prefix): boolean {
    if (p.high === 0 && p.low === 0) return this.#hasZero;
    return this.#occupied(this.#find(p));
  }

  /** `protocol_error` beyond the limit given at the start. */
  add(p: Prefix): void {
    if (this.has(p)) return;
    if (this.size >= this.#max) {
      throw new DaemonError('protocol_error', 'the peer announces more blobs than are accepted', {
        max: this.#max,
      });
    }
    if (p.high === 0 && p.low === 0) {
      this.#hasZero = true;
      return;
    }
    if ((this.#size + 1) * 4 > this.#table.length) this.#grow();
    this.#put(p);
    this.#size += 1;
  }

  delete(p: Prefix): void {
    if (p.high === 0 && p.low === 0) {
      this.#hasZero = false;
      return;
    }
    let gap = this.#find(p);
    if (!this.#occupied(gap)) return;
    this.#size -= 1;
    const mask = this.#table.length / 2 - 1;
    for (let i = (gap + 1) & mask; this.#occupied(i); i = (i + 1) & mask) {
      const home = this.#home(this.#table[i * 2]!, this.#table[i * 2 + 1]!);
      // The entry may move into the gap unless its home lies between the gap and itself.
      if (((i - home) & mask) >= ((i - gap) & mask)) {
        this.#table[gap * 2] = this.#table[i * 2]!;
        this.#table[gap * 2 + 1] = this.#table[i * 2 + 1]!;
        gap = i;
      }
    }
    this.#table[gap * 2] = 0;
    this.#table[gap * 2 + 1] = 0;
  }

  clear(): void {
    this.#table = new Uint32Array(32);
    this.#size = 0;
    this.#hasZero = false;
  }

  #occupied(i: number): boolean {
    return this.#table[i * 2] !== 0 || this.#table[i * 2 + 1] !== 0;
  }

  #home(high: number, low: number): number {
    // A peer chooses its prefixes: the secret seed keeps it from crowding them into one run of the table.
    const mixed =
      Math.imul(low ^ this.#seed, 0x9e3779b1) ^ Math.imul(high + this.#seed, 0x85ebca6b);
    return ((mixed ^ (mixed >>> 15)) >>> 0) & (this.#table.length / 2 - 1);
  }

  #find(p: Prefix): number {
    const mask = this.#table.length / 2 - 1;
    let i = this.#home(p.high, p.low);
    while (this.#occupied(i)) {
      if (this.#table[i * 2] === p.high && this.#table[i * 2 + 1] === p.low) return i;
      i = (i + 1) & mask;
    }
    return i;
  }

  #put(p: Prefix): void {
    const i = this.#find(p);
    this.#table[i * 2] = p.high;
    this.#table[i * 2 + 1] = p.low;
  }

  #grow(): void {
    const old = this.#table;
    this.#table = new Uint32Array(old.length * 2);
    for (let at = 0; at < old.length; at += 2) {
      const p = { high: old[at]!, low: old[at + 1]! };
      if (p.high !== 0 || p.low !== 0) this.#put(p);
    }
  }
}
