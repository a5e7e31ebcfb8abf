import type { Digest } from '../../../src/oci/digest.ts';
import type { PeerId } from '../../../src/swarm/ground/peer-id.ts';
import { peerDirectorySuite } from '../../contract/peer-directory-suite.ts';
import { MemoryDirectory } from '../../fakes/memory-directory.ts';
import { eventually, SwarmHost } from '../swarm-host.ts';

peerDirectorySuite('the table in memory', (t, count) => {
  const table = new Map<PeerId, Set<Digest>>();
  const hosts = Array.from({ length: count }, (_, i) => {
    const id = `host-${i}` as PeerId;
    return { id, directory: new MemoryDirectory(id, table) };
  });
  return Promise.resolve({
    hosts,
    leave: async () => hosts.at(-1)?.directory[Symbol.dispose](),
    eventually: (condition: () => boolean) => eventually(t, condition),
    [Symbol.asyncDispose]: () => Promise.resolve(),
  });
});

for (const transport of ['quic', 'tcp'] as const) {
  const only = { quic: transport === 'quic', tcp: transport === 'tcp' };

  peerDirectorySuite(`the mesh over ${transport}`, async (t, count) => {
    const swarms = new AsyncDisposableStack();
    const first = swarms.use(await SwarmHost.start(only));
    const all = [first];
    while (all.length < count) {
      all.push(swarms.use(await SwarmHost.start({ ...only, bootstrap: [first.address] })));
    }
    await Promise.all(all.map((host) => host.ready(count - 1)));
    return {
      hosts: all.map(({ swarm }) => ({ id: swarm.id, directory: swarm.directory })),
      leave: async () => all.at(-1)?.[Symbol.asyncDispose](),
      eventually: (condition: () => boolean) => eventually(t, condition),
      [Symbol.asyncDispose]: () => swarms.disposeAsync(),
    };
  });
}
