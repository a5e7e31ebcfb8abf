import assert from 'node:assert/strict';
import { DaemonError } from '../../../src/base/errors.ts';
import { type Digest, digestOf } from '../../../src/oci/digest.ts';
import { type OpenSource, pieceSourceSuite } from '../../contract/piece-source-suite.ts';
import { MemoryBlobs, SwarmHost } from '../swarm-host.ts';

/** Announces what it is given and then behaves as the suite wants. */
class MoodyBlobs extends MemoryBlobs {
  readonly asked = Promise.withResolvers<undefined>();
  readonly #mood: Parameters<OpenSource>[0];

  constructor(mood: Parameters<OpenSource>[0]) {
    super();
    this.#mood = mood;
  }

  override async pieceList(digest: Digest) {
    if (this.#mood === 'missing') throw new DaemonError('not_found', 'it was here a moment ago');
    return super.pieceList(digest);
  }

  override async readPiece(digest: Digest, index: number): Promise<Uint8Array> {
    this.asked.resolve(undefined);
    if (this.#mood === 'missing') throw new DaemonError('not_found', 'it was here a moment ago');
    if (this.#mood === 'silent' || this.#mood === 'busy') return new Promise(() => undefined);
    return super.readPiece(digest, index);
  }
}

for (const transport of ['quic', 'tcp'] as const) {
  const only = { quic: transport === 'quic', tcp: transport === 'tcp' };

  pieceSourceSuite(`a peer over ${transport}`, async (state, bytes) => {
    const hosts = new AsyncDisposableStack();
    const blobs = new MoodyBlobs(state);
    blobs.put(bytes);
    const slots = state === 'busy' ? { upload_slots: 1, max_waiting_uploads: 0 } : {};
    const holder = hosts.use(await SwarmHost.start({ ...only, ...slots }, { blobs }));
    const find = async (peers: number) => {
      const asker = hosts.use(await SwarmHost.start({ ...only, bootstrap: [holder.address] }));
      await asker.ready(peers);
      const source = asker.swarm
        .find(digestOf(bytes), bytes.length)
        .find((s) => s.id === holder.swarm.id);
      assert.ok(source !== undefined);
      return source;
    };
    const source = await find(1);
    if (state === 'busy') {
      // Another host has the only slot and keeps it: one stream of a peer never takes two.
      const rival = await find(2);
      rival
        .fetch(0, 4 * 1024 * 1024, { signal: new AbortController().signal })
        .catch(() => 'ends with its host');
      await blobs.asked.promise;
    }
    return { source, [Symbol.asyncDispose]: () => hosts.disposeAsync() };
  });
}
