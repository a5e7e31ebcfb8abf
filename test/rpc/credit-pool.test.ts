import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { CreditPool, OWN_WINDOW, WIDE_BYTES } from '../../src/rpc/h2/credit-pool.ts';
import { Inbound } from '../../src/rpc/h2/inbound.ts';
import { FakeClock } from '../fakes/fake-clock.ts';
import { grpcMessage } from './raw-peer.ts';

const KIB = 1024;
const MIB = 1024 * KIB;
const WIDE_CALLS = 32;
const CLAIMABLE_BYTES = 2 * (16 * MIB + 64 * KIB);
const FRAME_BYTES = 16_384;
/** Content of every message; cut out of one buffer, so that a run costs no gigabytes. */
const CONTENT = Buffer.alloc(16 * MIB + 64 * KIB, 'payload of no message in particular ');

/** All the pool has may be taken. */
function assertUnused(pool: CreditPool): void {
  for (let n = 0; n < WIDE_CALLS; n++) assert.ok(pool.widen(), `${n} places for wide calls`);
  assert.ok(!pool.widen());
  let granted = 0;
  for (let n = 0; n < 3; n++) {
    pool.claim({
      claimed_bytes: CONTENT.length,
      owner: {},
      granted: () => {
        granted += 1;
      },
      expired: () => undefined,
    });
  }
  assert.equal(granted, 2);
}

/** One call: a client that sends what its window allows, and a handler that takes one message after the other. */
class ModelCall {
  readonly inbound: Inbound;
  /** As the client counts it. */
  window = OWN_WINDOW;
  /** Bytes that came and are not freed, as memory counts them. */
  here = 0;
  /** Of the messages whose last byte has not come. */
  readonly unsent: number[];
  readonly whole: number[] = [];
  finished = 0;
  isOver = false;
  #pos = 0;

  constructor(pool: CreditPool, owner: object, lengths: readonly number[]) {
    this.unsent = [...lengths];
    this.inbound = new Inbound(
      { pool, owner },
      {
        announce: (bytes) => {
          assert.ok(bytes > 0);
          this.window += bytes;
        },
        begun: () => undefined,
        message: (bytes) => {
          assert.ok(CONTENT.subarray(0, bytes.length).equals(bytes));
          this.whole.push(bytes.length);
        },
        refuse: (error) => assert.fail(error),
      },
    );
  }

  get canSend(): boolean {
    return !this.isOver && this.unsent.length > 0 && this.window > 0;
  }

  get canWork(): boolean {
    return !this.isOver && this.whole.length > 0;
  }

  /** One DATA frame of up to `most` bytes, over the ends of messages, with padding. */
  send(most: number, padding: number): void {
    const parts: Buffer[] = [];
    const pad = this.window > padding + 1 ? padding : 0;
    let room = Math.min(most, FRAME_BYTES, this.window - pad);
    while (room > 0 && this.unsent.length > 0) {
      const [length] = this.unsent;
      const message = this.#pos < 5 ? grpcMessage(CONTENT.subarray(0, length)) : undefined;
      const bytes =
        message === undefined
          ? CONTENT.subarray(this.#pos - 5, Math.min(length!, this.#pos - 5 + room))
          : message.subarray(this.#pos, Math.min(message.length, this.#pos + room));
      parts.push(bytes);
      this.#pos += bytes.length;
      room -= bytes.length;
      if (this.#pos < 5 + length!) continue;
      this.#pos = 0;
      this.unsent.shift();
    }
    const payload = Buffer.concat(parts);
    this.window -= payload.length + pad;
    this.here += payload.length;
    assert.ok(this.window >= 0);
    assert.ok(this.inbound.spend(payload.length + pad), 'within the window it was told');
    if (pad > 0) this.inbound.padding(pad);
    this.inbound.data(payload, 0, payload.length);
  }

  /** The handler is done with the oldest message. */
  work(): void {
    const length = this.whole.shift()!;
    this.inbound.arrived();
    this.here -= length + 5;
    this.inbound.freed(length);
    this.finished += 1;
  }

  /** No more is here or allowed to come than has a place. */
  assertPlaces(): void {
    const places = OWN_WINDOW + WIDE_BYTES + this.inbound.claimed_bytes;
    assert.ok(this.window + this.here <= places, `${this.window} + ${this.here} > ${places}`);
  }

  /** Reset, or its end: what its handler has is freed with it. */
  end(): void {
    this.isOver = true;
    this.here = 0;
    this.inbound.close();
    this.inbound.release();
  }
}

const length = fc.oneof(
  { weight: 3, arbitrary: fc.integer({ min: 0, max: 300 }) },
  { weight: 2, arbitrary: fc.integer({ min: 60 * KIB, max: 70 * KIB }) },
  { weight: 3, arbitrary: fc.integer({ min: MIB - 100, max: MIB + 100 }) },
  { weight: 1, arbitrary: fc.integer({ min: 0, max: CONTENT.length }) },
  { weight: 1, arbitrary: fc.constant(CONTENT.length) },
);
const calls = fc.array(
  fc.record({
    owner: fc.integer({ min: 0, max: 2 }),
    lengths: fc.array(length, { minLength: 1, maxLength: 4 }),
  }),
  { minLength: 1, maxLength: 60 },
);

test('credit: in any order of sending, working and ending nothing lacks room for ever, and what is here stays bounded', () => {
  const owners = [{}, {}, {}];
  fc.assert(
    fc.property(calls, fc.infiniteStream(fc.nat()), (init, choices) => {
      const pool = new CreditPool({ clock: new FakeClock() });
      const all = init.map(({ owner, lengths }) => new ModelCall(pool, owners[owner]!, lengths));
      const bound = all.length * OWN_WINDOW + Math.min(all.length, WIDE_CALLS) * WIDE_BYTES;
      const choose = (count: number): number => (choices.next().value as number) % count;
      for (;;) {
        const senders = all.filter(({ canSend }) => canSend);
        const workers = all.filter(({ canWork }) => canWork);
        if (senders.length + workers.length === 0) break;
        const pick = choose(senders.length + workers.length);
        if (pick < senders.length) {
          // A client rarely sends one frame and stops; and a run is to end.
          const frames = 1 + choose(64);
          const padding = choose(8) === 0 ? choose(256) : 0;
          const call = senders[pick]!;
          for (let n = 0; n < frames && call.canSend; n++) call.send(FRAME_BYTES, padding);
        } else {
          workers[pick - senders.length]!.work();
        }
        for (const call of all) if (!call.isOver) call.assertPlaces();
        if (choose(100) === 0) all[choose(all.length)]!.end();
        const here = all.reduce((sum, call) => sum + call.here, 0);
        assert.ok(here <= bound + CLAIMABLE_BYTES, `${here} bytes are here`);
      }
      for (const call of all) {
        assert.ok(call.isOver || call.unsent.length === 0, 'a message never came');
        call.end();
      }
      assertUnused(pool);
    }),
    { numRuns: 40 },
  );
});
