/** Many swarm nodes in one process, which do nothing but be there. Started by `footprint.ts`, not by hand. */
import { SwarmHost } from '../swarm/swarm-host.ts';

export type CrowdOptions = {
  readonly peers: number;
  readonly bootstrap: string;
  readonly cluster_key: string;
};

const options = JSON.parse(process.argv[2]!) as CrowdOptions;
await using stack = new AsyncDisposableStack();
for (let n = 0; n < options.peers; n++) {
  const config = { bootstrap: [options.bootstrap], quic: true, tcp: true };
  stack.use(await SwarmHost.start(config, { key: options.cluster_key }));
}
const ended = new Promise<void>((resolve) => {
  process.once('SIGTERM', () => resolve());
  // The bench died: nobody will say so.
  process.once('disconnect', () => resolve());
});
process.send!('up');
await ended;
await stack.disposeAsync();
process.exit(0);
