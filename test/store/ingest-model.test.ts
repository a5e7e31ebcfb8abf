import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { hasCode } from '../../src/base/errors.ts';
import { digestOf } from '../../src/oci/digest.ts';
import type { Ingest } from '../../src/store/blob-store.ts';
import type { LocalStore } from '../../src/store/local-store.ts';
import { StoreRoom } from './store-room.ts';

const operation = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      op: fc.constant('write' as const),
      bytes: fc.uint8Array({ maxLength: 300 }),
    }),
  },
  fc.record({
    op: fc.constantFrom(
      'truncate',
      'reopen',
      'restart',
      'abort',
      'wrong size',
      'wrong digest',
      'commit',
    ),
  }),
);
type Operation = { op: string; bytes?: Uint8Array };

/** One ref of a store beside a plain buffer that should always hold the same. */
class Pair {
  model = Buffer.alloc(0);
  readonly committed = new Map<string, Buffer>();
  store: LocalStore;
  ingest: Ingest;
  readonly #room: StoreRoom;

  private constructor(room: StoreRoom, store: LocalStore, ingest: Ingest) {
    this.#room = room;
    this.store = store;
    this.ingest = ingest;
  }

  static async open(room: StoreRoom): Promise<Pair> {
    const store = await room.open();
    return new Pair(room, store, await store.ingest('ref', { total_bytes: 0 }));
  }

  async run({ op, bytes }: Operation): Promise<void> {
    if (op === 'write') {
      await this.ingest.write(bytes!);
      this.model = Buffer.concat([this.model, bytes!]);
    } else if (op === 'truncate') {
      await this.ingest.truncate();
      this.model = Buffer.alloc(0);
    } else if (op === 'abort') {
      await this.store.abort('ref');
      this.model = Buffer.alloc(0);
      await this.reopen();
    } else if (op === 'reopen') await this.reopen();
    else if (op === 'restart') {
      await this.close();
      this.store = await this.#room.open();
      this.ingest = await this.store.ingest('ref', { total_bytes: 0 });
    } else await this.commit(op);
    await this.check();
  }

  async commit(op: string): Promise<void> {
    const digest = digestOf(this.model);
    const size_bytes = this.model.length + (op === 'wrong size' ? 1 : 0);
    const expected =
      op === 'wrong digest'
        ? digestOf(Buffer.concat([this.model, this.model, Buffer.from('x')]))
        : digest;
    const code = await this.ingest.commit({ size_bytes, expected, labels: {} }).then(
      () => 'done',
      (error: unknown) =>
        hasCode(error, 'failed_precondition', 'already_exists') ? error.code : 'other',
    );
    if (op !== 'commit') {
      assert.equal(code, 'failed_precondition');
      return;
    }
    assert.equal(code, this.committed.has(digest) ? 'already_exists' : 'done');
    this.committed.set(digest, this.model);
    this.model = Buffer.alloc(0);
    await this.reopen();
  }

  async check(): Promise<void> {
    await this.ingest.ready(new AbortController().signal);
    assert.equal(this.ingest.status().offset_bytes, this.model.length);
    assert.equal(this.ingest.digest(), digestOf(this.model));
    assert.deepEqual(
      new Set([...(await this.store.list())].map((info) => info.digest)),
      new Set(this.committed.keys()),
    );
  }

  async reopen(): Promise<void> {
    await this.ingest[Symbol.asyncDispose]();
    this.ingest = await this.store.ingest('ref', { total_bytes: 0 });
  }

  async close(): Promise<void> {
    await this.ingest[Symbol.asyncDispose]();
    await this.store[Symbol.asyncDispose]();
  }
}

describe('an ingest', () => {
  it('agrees with a plain buffer after any sequence of calls', async (t) => {
    await fc.assert(
      fc.asyncProperty(fc.array(operation, { maxLength: 20 }), async (operations) => {
        const pair = await Pair.open(await StoreRoom.make(t));
        try {
          for (const each of operations) await pair.run(each);
        } finally {
          await pair.close();
        }
      }),
      { numRuns: 40 },
    );
  });
});
