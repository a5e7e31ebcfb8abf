import { HpackError } from './hpack-error.ts';
import { decodeHuffman } from './huffman.ts';

/** The decoded list is larger than the decoder's limit; the rest of it was not decoded, so the connection must end. */
export class HeaderListTooLarge extends Error {
  override readonly name = 'HeaderListTooLarge';
}

/** Name and value; octets as latin1. */
export type HeaderField = readonly [name: string, value: string];

/** The static table (RFC 7541, appendix A), from index 1. */
const STATIC_TABLE: readonly HeaderField[] = (
  ':authority|:method=GET|:method=POST|:path=/|:path=/index.html|:scheme=http|:scheme=https|:status=200|:status=204|' +
  ':status=206|:status=304|:status=400|:status=404|:status=500|accept-charset|accept-encoding=gzip, deflate|' +
  'accept-language|accept-ranges|accept|access-control-allow-origin|age|allow|authorization|cache-control|' +
  'content-disposition|content-encoding|content-language|content-length|content-location|content-range|' +
  'content-type|cookie|date|etag|expect|expires|from|host|if-match|if-modified-since|if-none-match|if-range|' +
  'if-unmodified-since|last-modified|link|location|max-forwards|proxy-authenticate|proxy-authorization|range|' +
  'referer|refresh|retry-after|server|set-cookie|strict-transport-security|transfer-encoding|user-agent|vary|via|' +
  'www-authenticate'
)
  .split('|')
  .map((field): HeaderField => {
    const [name = '', value = ''] = field.split('=');
    return [name, value];
  });

/** What every table entry costs beside its octets (RFC 7541, 4.1). */
const ENTRY_OVERHEAD = 32;

/** A dynamic table may have this size until our SETTINGS are acknowledged (RFC 9113, 6.5.2). */
export const INITIAL_TABLE_SIZE = 4096;

/**
 * HPACK decoder of one connection. It keeps a dynamic table of up to `tableLimit` bytes; with a limit of 0 it has no
 * state, and equal blocks mean equal lists.
 */
export class HpackDecoder {
  readonly #maxList: number;
  #limit = INITIAL_TABLE_SIZE;
  #size = 0;
  #capacity = INITIAL_TABLE_SIZE;
  /** Newest first. */
  #dynamic: HeaderField[] = [];
  #bytes: Uint8Array = new Uint8Array(0);
  #pos = 0;
  #end = 0;

  /** `maxList_bytes` bounds the decoded list: octets of names and values plus 32 for each field, as RFC 9113 counts. */
  constructor(config: { readonly maxList_bytes: number }) {
    this.#maxList = config.maxList_bytes;
  }

  /** The greatest size the other side may choose for its table, in bytes, from now on. */
  set tableLimit(bytes: number) {
    this.#limit = bytes;
    if (this.#capacity > bytes) this.#resize(bytes);
  }

  /**
   * Decodes one whole header block.
   * @throws HpackError or HeaderListTooLarge
   */
  decode(bytes: Uint8Array, start = 0, end = bytes.length): HeaderField[] {
    this.#bytes = bytes;
    this.#pos = start;
    this.#end = end;
    const list: HeaderField[] = [];
    let listSize = 0;
    while (this.#pos < this.#end) {
      const first = this.#bytes[this.#pos]!;
      if ((first & 0xe0) === 0x20) {
        if (list.length > 0) throw new HpackError('table size update after a field');
        const size = this.#integer(5);
        if (size > this.#limit) throw new HpackError('table size update beyond the limit');
        this.#resize(size);
        continue;
      }
      const field = this.#field(first);
      listSize += sizeOf(field);
      if (listSize > this.#maxList) throw new HeaderListTooLarge();
      list.push(field);
    }
    return list;
  }

  #field(first: number): HeaderField {
    if ((first & 0x80) !== 0) return this.#lookUp(this.#integer(7));
    const indexed = (first & 0x40) !== 0;
    const nameIndex = this.#integer(indexed ? 6 : 4);
    const name = nameIndex === 0 ? this.#string() : this.#lookUp(nameIndex)[0];
    const field: HeaderField = [name, this.#string()];
    if (indexed) this.#insert(field);
    return field;
  }

  #lookUp(index: number): HeaderField {
    const field =
      index <= STATIC_TABLE.length
        ? STATIC_TABLE[index - 1]
        : this.#dynamic[index - STATIC_TABLE.length - 1];
    if (field === undefined) throw new HpackError('index of no table entry');
    return field;
  }

  #integer(prefix: number): number {
    const mask = (1 << prefix) - 1;
    let value = this.#bytes[this.#pos++]! & mask;
    if (value < mask) return value;
    // Four more octets reach 2^28: far beyond every length and index that can be meant here.
    for (let shift = 0; shift < 28; shift += 7) {
      if (this.#pos >= this.#end) throw new HpackError('integer cut off');
      const octet = this.#bytes[this.#pos++]!;
      value += (octet & 0x7f) << shift;
      if ((octet & 0x80) === 0) return value;
    }
    throw new HpackError('integer too large');
  }

  #string(): string {
    if (this.#pos >= this.#end) throw new HpackError('string cut off');
    const huffman = (this.#bytes[this.#pos]! & 0x80) !== 0;
    const length = this.#integer(7);
    const start = this.#pos;
    if (length > this.#end - start) throw new HpackError('string longer than its block');
    this.#pos = start + length;
    if (huffman) return decodeHuffman(this.#bytes, start, this.#pos);
    return Buffer.from(this.#bytes.buffer, this.#bytes.byteOffset + start, length).toString(
      'latin1',
    );
  }

  #insert(field: HeaderField): void {
    this.#evict(this.#capacity - sizeOf(field));
    if (sizeOf(field) > this.#capacity) return;
    this.#dynamic.unshift(field);
    this.#size += sizeOf(field);
  }

  #resize(capacity: number): void {
    this.#capacity = capacity;
    this.#evict(capacity);
  }

  #evict(target: number): void {
    while (this.#size > Math.max(target, 0)) {
      const oldest = this.#dynamic.pop();
      if (oldest === undefined) return;
      this.#size -= sizeOf(oldest);
    }
  }
}

function sizeOf([name, value]: HeaderField): number {
  return name.length + value.length + ENTRY_OVERHEAD;
}

/**
 * A header block of literals that are never indexed and not Huffman-coded: readable with any state of the other side's
 * decoder, so it may be made once and sent many times. `:status` 200 is the one field that takes the static table.
 * Names are lower case; octets beyond latin1 must not occur.
 */
export function encodeLiteral(fields: readonly HeaderField[]): Buffer {
  const parts: Buffer[] = [];
  for (const [name, value] of fields) {
    if (name === ':status' && value === '200') parts.push(Buffer.of(0x88));
    else parts.push(Buffer.of(0x00), literal(name), literal(value));
  }
  return Buffer.concat(parts);
}

function literal(text: string): Buffer {
  const octets = Buffer.from(text, 'latin1');
  const length: number[] = [];
  if (octets.length < 0x7f) {
    length.push(octets.length);
  } else {
    length.push(0x7f);
    let rest = octets.length - 0x7f;
    for (; rest >= 0x80; rest >>= 7) length.push((rest & 0x7f) | 0x80);
    length.push(rest);
  }
  return Buffer.concat([Buffer.from(length), octets]);
}
