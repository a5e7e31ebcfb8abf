import { buildImage } from '../fixtures/image.ts';
import { cacheDir, debianTools } from '../host/lab/debian-packages.ts';
import { SwarmLab, type SwarmNode } from '../host/swarm-lab.ts';
import type { BenchContext } from './part.ts';
import { atMost, median, type Row, row } from './row.ts';

const BOUND_MS = 50;
const IMAGE_BYTES = 2e6;

/** `ctr image pull` of a small image that no peer has, with a connected peer and with the swarm switched off. */
export async function missCost({ scope, quick, note }: BenchContext): Promise<Row[]> {
  const tools = await debianTools();
  const lab = scope.use(await SwarmLab.create(tools));
  const image = await buildImage({ seed: 'miss', size_bytes: IMAGE_BYTES, layers: 3 }, cacheDir());
  const other = await buildImage({ seed: 'other', size_bytes: IMAGE_BYTES, layers: 1 }, cacheDir());
  const ref = await lab.push(image, 'miss');
  await lab.addNode('peer', { seeds: [other] });
  const line = '1.7';
  const store = ['cache_max_bytes = 0'];
  const alone = await lab.addNode('alone', { line, config: { store, swarm: ['enabled = false'] } });
  const joined = await lab.addNode('joined', { line, config: { store } });
  await lab.heldByAll(joined, 1);
  const pull = async (node: SwarmNode): Promise<number> => {
    const { elapsed_ms } = await node.containerd.pull(ref);
    await node.containerd.clear();
    return elapsed_ms;
  };
  const times = { alone: [] as number[], joined: [] as number[] };
  await pull(alone);
  await pull(joined);
  for (let run = 0; run < (quick ? 5 : 15); run++) {
    times.alone.push(await pull(alone));
    times.joined.push(await pull(joined));
  }
  const [without, withSwarm] = [median(times.alone), median(times.joined)];
  note(`miss: ${without.toFixed(0)} ms without a swarm, ${withSwarm.toFixed(0)} ms with one`);
  return [
    row('small image nobody has, with a swarm', withSwarm, 'ms', {
      against: { name: 'without a swarm', value: without },
    }),
    row('extra time of a miss', withSwarm - without, 'ms', { bound: atMost(BOUND_MS) }),
  ];
}
