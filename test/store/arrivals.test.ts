import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { type Digest, digestOf } from '../../src/oci/digest.ts';
import type { UnverifiedPiece } from '../../src/piece/source.ts';
import type { VerifiedPiece } from '../../src/piece/verified-piece.ts';
import { ARRIVAL_KEEP_MS } from '../../src/store/blobs/cache-folder.ts';
import { LocalStore } from '../../src/store/local-store.ts';
import { storeConfig } from '../../src/store/store-config.ts';
import { FakeClock } from '../fakes/fake-clock.ts';
import { MemoryLogger } from '../fakes/memory-logger.ts';
import { MemoryRegister } from '../fakes/memory-register.ts';

/** A store that keeps no cache. */
async function openStore(t: TestContext, clock: FakeClock): Promise<LocalStore> {
  const dir = await mkdtemp(join(tmpdir(), 'layerswarm-arrivals-'));
  t.after(() => rm(dir, { recursive: true, force: true }));
  const config = storeConfig({
    content_directory: join(dir, 'content'),
    state_directory: join(dir, 'state'),
    create_content_directory: true,
    cache_max_bytes: 0,
    disk_floor_bytes: 0,
  });
  const modules = { clock, logger: new MemoryLogger(), register: new MemoryRegister() };
  return LocalStore.open(modules, config);
}

async function arrive(store: LocalStore): Promise<Digest> {
  const bytes = Buffer.from('a layer that came from a peer');
  const digest = digestOf(bytes);
  await using staged = await store.stage(digest, bytes.length);
  const sha256: Uint8Array = createHash('sha256').update(bytes).digest();
  const piece: UnverifiedPiece & { sha256: Uint8Array } = { index: 0, bytes, sha256 };
  await staged.write(piece as VerifiedPiece);
  await staged.publish();
  return digest;
}

describe('a blob that came from peers, in a store that keeps no cache', () => {
  it('is there when containerd asks for it, and goes when containerd deletes it', async (t) => {
    await using store = await openStore(t, new FakeClock());
    const digest = await arrive(store);
    assert.notEqual(store.adopt(digest), undefined);
    await store.delete(digest);
    assert.equal(store.info(digest), undefined);
  });

  it('goes when containerd has not asked for it in time, but only at a call of containerd', async (t) => {
    const clock = new FakeClock();
    await using store = await openStore(t, clock);
    const stop = new AbortController();
    const running = store.run({ signal: stop.signal });
    const digest = await arrive(store);
    await clock.advance(ARRIVAL_KEEP_MS - 1);
    assert.deepEqual([...(await store.list())], []);
    assert.notEqual(store.info(digest), undefined);
    await clock.advance(2 * ARRIVAL_KEEP_MS);
    await setImmediate();
    // containerd may run its own store in the directory by now, and have taken the blob: without a call of its nothing is moved.
    assert.notEqual(store.info(digest), undefined);
    assert.deepEqual([...(await store.list())], []);
    assert.equal(store.info(digest), undefined);
    stop.abort();
    await running;
  });
});
