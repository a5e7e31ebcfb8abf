import { DaemonError } from '../../base/errors.ts';
import {
  type Claim,
  type CreditPool,
  MAX_MESSAGE_BYTES,
  OWN_WINDOW,
  WIDE_BYTES,
} from './credit-pool.ts';
import { PREFIX_BYTES } from './outbox.ts';

/** Whom the messages of a call come to. */
export interface MessageSink {
  /** The client may send `bytes` more of DATA on this stream. */
  announce(bytes: number): void;
  /** A message begins. */
  begun(): void;
  /** A whole message, in a buffer of its own. */
  message(bytes: Uint8Array): void;
  /** The call cannot go on. */
  refuse(error: DaemonError): void;
}

/** What a call's messages have to do with those of others. */
export type InboundModules = { readonly pool: CreditPool; readonly owner: object };

/**
 * The receiving half of one stream: DATA to messages, and credit for more of it. Of what the client was allowed to send,
 * each byte is in one place: still to come, held (a message in the making, waiting or worked on), or owed back. Their
 * sum is `OWN_WINDOW`, what the call was widened by, and the claim of the message in the making.
 */
export class Inbound implements Claim {
  readonly owner: object;
  claimed_bytes = 0;
  readonly #pool: CreditPool;
  readonly #sink: MessageSink;
  /** Bytes of DATA that the client may still send. */
  #window = OWN_WINDOW;
  /** Consumed, and not yet given back. */
  #owed = 0;
  /** Whole messages that the call is not done with, prefixes included. */
  #held = 0;
  #wide = false;
  /** A message in the making that lacks room: for `turn` of those before it, or for a `claim`. */
  #lacking: 'nothing' | 'turn' | 'claim' = 'nothing';
  #flag = 0;
  #length = 0;
  #prefixHave = 0;
  /** Of the message in the making; shorter than that one while it lacks room. */
  #buffer: Buffer | undefined;
  #filled = 0;
  /** The client has ended: it needs no more credit. */
  #ended = false;
  #closed = false;

  constructor({ pool, owner }: InboundModules, sink: MessageSink) {
    this.#pool = pool;
    this.owner = owner;
    this.#sink = sink;
  }

  /** No byte of a message has come. */
  get untouched(): boolean {
    return this.#prefixHave === 0 && this.#held === 0;
  }

  /** The client ended, or broke off, within a message. */
  get within(): boolean {
    return this.#prefixHave > 0;
  }

  /** A DATA frame of `size` bytes came; false when the window did not allow it. */
  spend(size: number): boolean {
    this.#window -= size;
    return this.#window >= 0;
  }

  /** Padding came: it takes no room, and no message may lack the credit it cost. */
  padding(bytes: number): void {
    this.#announce(bytes);
  }

  /** Payload of a DATA frame. The bytes are copied. */
  data(bytes: Buffer, start: number, end: number): void {
    let pos = start;
    while (pos < end && !this.#closed) {
      if (this.#buffer !== undefined) pos = this.#fill(this.#buffer, bytes, pos, end);
      else {
        const octet = bytes[pos++]!;
        if (this.#prefixHave === 0) {
          this.#flag = octet;
          this.#length = 0;
        } else {
          this.#length = this.#length * 256 + octet;
        }
        this.#prefixHave += 1;
        if (this.#prefixHave === PREFIX_BYTES) this.#begin(end - pos);
      }
    }
  }

  /** The message with a claim is with its handler, or the client has ended behind it. */
  arrived(): void {
    if (this.claimed_bytes > 0) this.#pool.arrived(this);
  }

  /** The call is done with a message of `length` bytes, the first of those it has. */
  freed(length: number): void {
    if (this.#closed) return;
    const bytes = PREFIX_BYTES + length;
    this.#held -= bytes;
    // Claims are made for the first message only, so this was its own.
    this.#owed += bytes - this.#unclaim();
    if (this.#lacking === 'turn') this.#makeRoom(0);
    else if (this.#owed >= (OWN_WINDOW + (this.#wide ? WIDE_BYTES : 0)) / 2) this.#giveBack();
  }

  /** The client sends no more. */
  end(): void {
    this.#ended = true;
  }

  /** The stream is over. What handlers still work on keeps its place until `release`. */
  close(): void {
    this.#closed = true;
    this.#buffer = undefined;
    if (this.#held === 0) this.#unclaim();
  }

  /** The stream is over, and nobody works on its messages. */
  release(): void {
    this.#unclaim();
    if (this.#wide) this.#pool.narrow();
    this.#wide = false;
  }

  granted(): void {
    this.#lacking = 'nothing';
    this.#announce(this.claimed_bytes);
    this.#resize(this.#length);
  }

  expired(): void {
    this.#sink.refuse(
      new DaemonError(
        'deadline_exceeded',
        'a large request message did not get through in time, and others waited for its room',
        { length: this.#length, filled: this.#filled },
      ),
    );
  }

  /** A message's prefix is whole; `have` bytes of it follow at once. */
  #begin(have: number): void {
    this.#sink.begun();
    if (this.#closed) return;
    this.#filled = 0;
    if (this.#flag !== 0) {
      this.#sink.refuse(new DaemonError('unimplemented', 'compressed messages are not taken'));
    } else if (this.#length > MAX_MESSAGE_BYTES) {
      this.#sink.refuse(
        new DaemonError(
          'resource_exhausted',
          `request message of ${this.#length} bytes is too large`,
        ),
      );
    } else {
      this.#makeRoom(Math.min(have, this.#length));
      if (this.#length === 0) this.#deliver(this.#buffer!);
    }
  }

  /** Sees to it that the message can come whole, at once or later. `have`: bytes of it that are here and not yet filled in. */
  #makeRoom(have: number): void {
    const missing = this.#length - this.#filled - have;
    this.#lacking = 'nothing';
    if (missing > this.#window) this.#giveBack();
    if (missing > this.#window && !this.#wide && this.#pool.widen()) {
      this.#wide = true;
      this.#announce(WIDE_BYTES);
    }
    this.#resize(Math.min(this.#length, this.#filled + have + this.#window));
    if (missing <= this.#window) return;
    if (this.#held > 0) {
      this.#lacking = 'turn';
    } else {
      this.#lacking = 'claim';
      this.claimed_bytes = missing - this.#window;
      this.#pool.claim(this);
    }
  }

  #fill(buffer: Buffer, bytes: Buffer, pos: number, end: number): number {
    const count = Math.min(this.#length - this.#filled, end - pos);
    bytes.copy(buffer, this.#filled, pos, pos + count);
    this.#filled += count;
    if (this.#filled === this.#length) this.#deliver(buffer);
    return pos + count;
  }

  #deliver(buffer: Buffer): void {
    this.#buffer = undefined;
    this.#prefixHave = 0;
    this.#held += PREFIX_BYTES + buffer.length;
    this.#sink.message(buffer);
  }

  #resize(length: number): void {
    const before = this.#buffer;
    if (before?.length === length) return;
    this.#buffer = Buffer.allocUnsafeSlow(length);
    before?.copy(this.#buffer, 0, 0, this.#filled);
  }

  #giveBack(): void {
    const owed = this.#owed;
    this.#owed = 0;
    this.#announce(owed);
  }

  #announce(bytes: number): void {
    if (bytes === 0 || this.#ended || this.#closed) return;
    this.#window += bytes;
    this.#sink.announce(bytes);
  }

  /** Gives a claim back, granted or not; says how much it was. */
  #unclaim(): number {
    const bytes = this.claimed_bytes;
    if (bytes === 0) return 0;
    this.#pool.release(this);
    this.claimed_bytes = 0;
    return bytes;
  }
}
