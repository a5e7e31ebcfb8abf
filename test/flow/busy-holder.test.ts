// One holder that more hosts ask than it can serve at once, over real sockets on loopback: busy is not dead.
import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { systemClock } from '../../src/base/clock.ts';
import { hasCode } from '../../src/base/errors.ts';
import type { Digest } from '../../src/oci/digest.ts';
import { PIECE_BYTES, pieceCount, pieceLength } from '../../src/piece/layout.ts';
import type { PieceSource } from '../../src/piece/source.ts';
import { SwarmHost } from '../swarm/swarm-host.ts';

const MIB = 1024 * 1024;
/** Twice what the pull room waits for the first byte, for all of these hosts share one event loop. */
const PATIENCE_MS = 2000;
const LOOK_MS = 50;

type Fetched = {
  readonly busy: number;
  readonly stalls: number;
  readonly bytes: Uint8Array;
};

/**
 * A whole blob from one source, as the pull room takes it: `depth` requests at once, "busy" is waited out, and a source from which nothing
 * comes for the length of our patience counts as stalled.
 */
async function fetchAll(source: PieceSource, size_bytes: number): Promise<Fetched> {
  const bytes = new Uint8Array(size_bytes);
  const found = { busy: 0, stalls: 0 };
  let now = 0;
  let heard = 0;
  const onProgress = (): void => {
    heard = now;
  };
  const waiting = new Set<{ readonly since: number }>();
  // In turns of this event loop, not by the clock: a machine that is busy otherwise stops both.
  const look = setInterval(() => {
    now += LOOK_MS;
    for (const { since } of waiting)
      if (now - Math.max(since, heard) > PATIENCE_MS) found.stalls += 1;
  }, LOOK_MS);
  let next = 0;
  const work = async (): Promise<void> => {
    for (let index = next++; index < pieceCount(size_bytes); index = next++) {
      await fetchOne(index);
    }
  };
  const fetchOne = async (index: number): Promise<void> => {
    const length = pieceLength(size_bytes, index);
    for (;;) {
      const asking = { since: now };
      waiting.add(asking);
      try {
        const options = { signal: new AbortController().signal, patience_ms: PATIENCE_MS };
        const piece = await source.fetch(index, length, { ...options, onProgress });
        bytes.set(piece.bytes, index * PIECE_BYTES);
        piece.release?.();
        return;
      } catch (error) {
        waiting.delete(asking);
        if (!hasCode(error, 'unavailable')) throw error;
        found.busy += 1;
        const { retry_after_ms } = error.facts;
        assert.ok(Number.isInteger(retry_after_ms), 'busy, but not for how long');
        await systemClock.sleep(Number(retry_after_ms));
      } finally {
        waiting.delete(asking);
      }
    }
  };
  await Promise.all(Array.from({ length: source.depth }, work)).finally(() => clearInterval(look));
  return { ...found, bytes };
}

/** A holder of one blob and `count` hosts that know it, all on one transport. */
async function swarmOf(
  stack: AsyncDisposableStack,
  options: {
    readonly transport: 'quic' | 'tcp';
    readonly pullers: number;
    readonly size_bytes: number;
    readonly holder: {
      readonly upload_slots?: number;
      readonly max_upload_bytes_per_second?: number;
    };
  },
) {
  const only = { tcp: options.transport === 'tcp', quic: options.transport === 'quic' };
  const holder = stack.use(await SwarmHost.start({ ...only, ...options.holder }));
  const blob = randomBytes(options.size_bytes);
  const digest = holder.blobs.put(blob);
  const pullers: SwarmHost[] = [];
  for (let i = 0; i < options.pullers; i++) {
    const puller = stack.use(await SwarmHost.start({ ...only, bootstrap: [holder.address] }));
    await puller.until((s) => s.peers.some((p) => p.id === holder.swarm.id && p.blobs > 0));
    pullers.push(puller);
  }
  // Connections still being made would take the time that the test is about.
  await Promise.all([holder, ...pullers].map((host) => host.ready(options.pullers)));
  return { holder, pullers, digest, sha256: sha256(blob) };
}

function sourceOf(puller: SwarmHost, holder: SwarmHost, digest: Digest, size_bytes: number) {
  const source = puller.swarm.find(digest, size_bytes).find((s) => s.id === holder.swarm.id);
  assert.ok(source !== undefined);
  return source;
}

function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

function assertNobodyPaid(hosts: readonly SwarmHost[]): void {
  for (const { swarm } of hosts) assert.deepEqual(swarm.status().bans, []);
}

for (const transport of ['quic', 'tcp'] as const) {
  test(`two slots and six pullers: every piece comes, nobody stalls, nothing is sent in vain: ${transport}`, {
    timeout: 60_000,
  }, async () => {
    await using stack = new AsyncDisposableStack();
    const size_bytes = 2 * PIECE_BYTES + 100_000;
    const { holder, pullers, digest, ...whole } = await swarmOf(stack, {
      transport,
      pullers: 6,
      size_bytes,
      // A piece takes a second, as over a real link, so six hosts are too many to be served within anybody's patience.
      holder: { upload_slots: 2, max_upload_bytes_per_second: 8 * MIB },
    });
    const fetched = await Promise.all(
      pullers.map((puller) => fetchAll(sourceOf(puller, holder, digest, size_bytes), size_bytes)),
    );
    for (const { bytes, stalls } of fetched) {
      assert.equal(sha256(bytes), whole.sha256);
      assert.equal(stalls, 0, 'a busy holder looked dead');
    }
    assert.ok(
      fetched.some(({ busy }) => busy > 0),
      'nobody had to wait',
    );
    const uploaded = holder.register.value('swarm_uploaded_bytes_total');
    assert.ok(uploaded <= 1.05 * 6 * size_bytes, `${uploaded} bytes left for ${6 * size_bytes}`);
    assertNobodyPaid([holder, ...pullers]);
  });

  for (const count of [1, 3]) {
    test(`an upload limit of 2 MiB/s lets ${count} pullers in at once, and a list passes by 16 MiB of pieces: ${transport}`, {
      timeout: 60_000,
    }, async () => {
      await using stack = new AsyncDisposableStack();
      const size_bytes = 4 * PIECE_BYTES;
      const { holder, pullers, digest } = await swarmOf(stack, {
        transport,
        pullers: count,
        size_bytes,
        holder: { max_upload_bytes_per_second: 2 * MIB },
      });
      const order: string[] = [];
      const end = new AbortController();
      const outcomes = pullers.map(async (puller, i) => {
        const source = sourceOf(puller, holder, digest, size_bytes);
        const began = Promise.withResolvers<undefined>();
        const fetches = [0, 1, 2, 3].map((index) =>
          source.fetch(index, PIECE_BYTES, {
            signal: end.signal,
            patience_ms: PATIENCE_MS,
            onProgress: () => began.resolve(undefined),
          }),
        );
        const pieces = fetches.map((fetch) =>
          fetch.then(
            () => order.push(`piece of ${i}`),
            () => undefined,
          ),
        );
        await began.promise;
        order.push(`first byte of ${i}`);
        await source.list({ max_pieces: 4, signal: end.signal, patience_ms: PATIENCE_MS });
        order.push(`list of ${i}`);
        return pieces;
      });
      const pieces = await Promise.all(outcomes);
      // All of them have their first bytes and their lists while no piece is whole yet: nobody waits for another's piece.
      assert.deepEqual(
        order.filter((what) => what.startsWith('piece')),
        [],
      );
      assert.equal(order.length, 2 * count);
      // What is on its way is given up with its requests, and the limit holds for what left.
      end.abort();
      await Promise.all(pieces.flat());
      const uploaded = holder.register.value('swarm_uploaded_bytes_total');
      assert.ok(uploaded < count * PIECE_BYTES, `${uploaded} bytes left before every first piece`);
      assertNobodyPaid([holder, ...pullers]);
    });
  }
}
