// containerd's database waits for a COMMIT: what it does to the disk is counted here, for writers that said everything beforehand and for those that did not.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { setImmediate } from 'node:timers/promises';
import { describe, it } from 'node:test';
import { hasCode } from '../../src/base/errors.ts';
import { type Digest, digestOf } from '../../src/oci/digest.ts';
import { UNFORCED_MAX_BYTES } from '../../src/store/ingests/write-behind.ts';
import type { Files } from '../../src/store/disk/files.ts';
import { FaultyFiles } from './faulty-files.ts';
import { content, StoreRoom } from './store-room.ts';

/** For what would wait for ever. */
const LIMIT = { timeout: 20_000 };
const MIB = 2 ** 20;
const bytes = content(3 * MIB + 1000);
const sha512 = `sha512:${createHash('sha512').update(bytes).digest('hex')}` as Digest;

/** What a COMMIT may do when everything was done before: put the empty ingest aside, whose removal nobody waits for. */
const NOTHING = ['renameNow'];

describe('what a COMMIT costs', () => {
  for (const digest of [digestOf(bytes), sha512]) {
    const algorithm = digest.slice(0, 6);
    for (const total_bytes of [bytes.length, 0]) {
      const told = total_bytes > 0 ? 'a total and a digest' : 'a digest and no total';
      it(`is one rename for a writer that named ${told} (${algorithm}), and no byte is read again`, async (t) => {
        const faulty = new FaultyFiles();
        const room = await StoreRoom.make(t, {}, { files: faulty.files });
        await using store = await room.open();
        const options = { total_bytes, named: digest };
        await using ingest = await store.ingest(`ns/1/layer-${digest}`, options);
        await ingest.ready(t.signal);
        for (let at = 0; at < bytes.length; at += MIB) {
          await ingest.write(bytes.subarray(at, at + MIB));
        }
        assert.notEqual(store.info(digest), undefined, 'published before the last answer');
        assert.ok(!faulty.done.includes('read'));
        await store.settled();
        faulty.disarm();
        await ingest.commit({ size_bytes: 0, expected: digest, labels: {} });
        assert.deepEqual(
          faulty.done.filter((name) => name !== 'remove'),
          NOTHING,
        );
        assert.deepEqual(
          [...(await store.list())].map((info) => info.digest),
          [digest],
        );
      });
    }
  }

  it('is one rename for a complete ingest of an earlier writer that named a digest and no total', async (t) => {
    const digest = digestOf(bytes);
    const faulty = new FaultyFiles();
    const room = await StoreRoom.make(t, {}, { files: faulty.files });
    const ref = `ns/1/layer-${digest}`;
    {
      await using store = await room.open();
      await using ingest = await store.ingest(ref, { total_bytes: 0 });
      await ingest.write(bytes);
    }
    await using store = await room.open();
    await using ingest = await store.ingest(ref, { total_bytes: 0, named: digest });
    await ingest.ready(t.signal);
    await store.settled();
    faulty.disarm();
    await ingest.commit({ size_bytes: 0, expected: digest, labels: {} });
    assert.deepEqual(
      faulty.done.filter((name) => name !== 'remove'),
      NOTHING,
    );
  });

  it('is little for a writer that named nothing: what it wrote is forced to the disk while it writes', async (t) => {
    const disk = new SlowDisk();
    const room = await StoreRoom.make(t, {}, { files: disk.files });
    await using store = await room.open();
    await using ingest = await store.ingest('ns/1/tar', { total_bytes: 0 });
    const whole = content(3 * UNFORCED_MAX_BYTES + 777);
    for (let at = 0; at < whole.length; at += MIB) {
      await ingest.write(whole.subarray(at, at + MIB));
      assert.ok(disk.unforced_bytes <= UNFORCED_MAX_BYTES + MIB, `${disk.unforced_bytes}`);
    }
    await ingest.commit({ size_bytes: 0, expected: digestOf(whole), labels: {} });
    assert.equal(disk.unforced_bytes, 0);
    assert.ok(disk.syncs < 20, `${disk.syncs} forced writes`);
  });

  it('is bounded on any disk: a writer waits when the disk falls behind', async (t) => {
    const disk = new SlowDisk();
    const room = await StoreRoom.make(t, {}, { files: disk.files });
    await using store = await room.open();
    await using ingest = await store.ingest('ns/1/tar', { total_bytes: 0 });
    disk.stop();
    let written = 0;
    const writing = (async () => {
      for (; written < 4 * UNFORCED_MAX_BYTES; written += MIB) {
        await ingest.write(content(MIB, written));
      }
    })();
    await disk.stuck;
    while (written < UNFORCED_MAX_BYTES - MIB) await setImmediate();
    for (let i = 0; i < 100; i += 1) await setImmediate();
    assert.ok(disk.unforced_bytes <= UNFORCED_MAX_BYTES + MIB, `${disk.unforced_bytes}`);
    disk.goOn();
    await writing;
    assert.equal(ingest.status().offset_bytes, 4 * UNFORCED_MAX_BYTES);
  });

  it('is not the wait for others: it passes them on the way to the disk', LIMIT, async (t) => {
    const disk = new SlowDisk();
    const room = await StoreRoom.make(t, {}, { files: disk.files });
    await using store = await room.open();
    await using ingest = await store.ingest('ns/1/tar', { total_bytes: 0 });
    const pullers = Array.from({ length: 6 }, async (_, seed) => {
      const layer = content(1000, seed);
      const digest = digestOf(layer);
      const options = { total_bytes: layer.length, named: digest };
      await using other = await store.ingest(`ns/1/layer-${digest}`, options);
      await other.write(layer);
    });
    disk.stop(4);
    while (disk.waiting < 4) await setImmediate();
    // What is due meanwhile has to stand in line.
    const whole = content(UNFORCED_MAX_BYTES / 2 + MIB);
    await ingest.write(whole);
    await ingest.commit({ size_bytes: 0, expected: digestOf(whole), labels: {} });
    disk.goOn();
    await Promise.all(pullers);
  });
});

describe('a force to the disk that fails while a writer without a total writes', () => {
  for (const then of ['write', 'commit'] as const) {
    it(`is told by the next ${then}, and nothing of its bytes is ever committed`, async (t) => {
      const disk = new SlowDisk();
      const room = await StoreRoom.make(t, {}, { files: disk.files });
      await using store = await room.open();
      await using ingest = await store.ingest('ns/1/tar', { total_bytes: 0 });
      const whole = content(UNFORCED_MAX_BYTES);
      disk.stop();
      for (let at = 0; at < whole.length / 2 + MIB; at += MIB) {
        await ingest.write(whole.subarray(at, at + MIB));
      }
      await disk.stuck;
      // The system tells a descriptor once that pages were lost: the force after it succeeds.
      const told =
        then === 'write'
          ? ingest.write(whole.subarray(0, MIB))
          : ingest.commit({ size_bytes: 0, expected: '', labels: {} });
      disk.fail();
      await assert.rejects(
        then === 'commit' ? told : told.then(() => ingest.write(bytes)),
        (error) => hasCode(error, 'internal') || hasCode(error, 'resource_exhausted'),
      );
      assert.equal(ingest.status().offset_bytes, 0);
      assert.deepEqual([...(await store.list())], []);
      await ingest.write(bytes);
      const want = { size_bytes: 0, expected: digestOf(bytes), labels: {} };
      await ingest.commit(want);
    });
  }

  it('costs the bytes when the writer has left meanwhile', async (t) => {
    const disk = new SlowDisk();
    const room = await StoreRoom.make(t, {}, { files: disk.files });
    await using store = await room.open();
    disk.stop();
    {
      await using ingest = await store.ingest('ns/1/tar', { total_bytes: 0 });
      await ingest.write(content(UNFORCED_MAX_BYTES / 2 + MIB));
      await disk.stuck;
      disk.fail();
    }
    await using next = await store.ingest('ns/1/tar', { total_bytes: 0 });
    assert.equal(next.status().offset_bytes, 0);
    await next.ready(t.signal);
    await next.write(bytes);
    await next.commit({ size_bytes: 0, expected: digestOf(bytes), labels: {} });
  });
});

/** A disk whose forced writes stop on command, and which knows what was not forced yet. */
class SlowDisk {
  readonly files: Files;
  /** Resolves when a force waits. */
  stuck: Promise<undefined> = Promise.resolve(undefined);
  unforced_bytes = 0;
  syncs = 0;
  /** Forces that were stopped. */
  waiting = 0;
  #onStuck = (): void => undefined;
  #gate: Promise<undefined> = Promise.resolve(undefined);
  #open = (): void => undefined;
  #break: (error: Error) => void = () => undefined;
  #stops = 0;

  constructor() {
    const { files } = new FaultyFiles();
    this.files = {
      ...files,
      write: async (fd, part, position) => {
        const count = await files.write(fd, part, position);
        this.unforced_bytes += count;
        return count;
      },
      sync: async (fd) => {
        this.syncs += 1;
        const forced = this.unforced_bytes;
        if (this.waiting < this.#stops) {
          this.waiting += 1;
          this.#onStuck();
          await this.#gate;
        }
        await files.sync(fd);
        this.unforced_bytes = Math.max(0, this.unforced_bytes - forced);
      },
    };
  }

  /** The next `count` forces wait. */
  stop(count = Infinity): void {
    this.waiting = 0;
    this.#stops = count;
    const stuck = Promise.withResolvers<undefined>();
    this.stuck = stuck.promise;
    this.#onStuck = () => stuck.resolve(undefined);
    const gate = Promise.withResolvers<undefined>();
    this.#gate = gate.promise;
    this.#open = () => gate.resolve(undefined);
    this.#break = gate.reject;
  }

  goOn(): void {
    this.#stops = 0;
    this.#open();
  }

  /** What waits fails, once. */
  fail(): void {
    this.#stops = 0;
    this.#break(Object.assign(new Error('EIO: injected, sync'), { code: 'EIO' }));
  }
}
