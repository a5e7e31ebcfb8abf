import { buildImage } from '../fixtures/image.ts';
import { LabContainerd } from '../host/lab/containerd.ts';
import { cacheDir, debianTools } from '../host/lab/debian-packages.ts';
import type { LabHost } from '../host/lab/host.ts';
import { SWARM_PORT, SwarmLab } from '../host/swarm-lab.ts';
import { untilTrue } from '../host/wait.ts';
import type { BenchContext } from './part.ts';
import { productArgv } from './product.ts';
import { atMost, median, type Row, row } from './row.ts';

const BOUND_MS = 50;
const IMAGE_BYTES = 2e6;
const LINE = '1.7';
/** Round trip to the peer; the registry is as near as before. */
const ROUND_TRIP_MS = 20;

type Puller = { readonly name: string; readonly containerd: LabContainerd; times: number[] };

/**
 * `ctr image pull` of a small image that no peer has, with a connected peer, with the swarm switched off, and on containerd's own store;
 * with the peer on the same switch, and with it 20 ms away.
 */
export async function missCost({ scope, quick, note }: BenchContext): Promise<Row[]> {
  const tools = await debianTools();
  const lab = scope.use(await SwarmLab.create(tools));
  const image = await buildImage({ seed: 'miss', size_bytes: IMAGE_BYTES, layers: 3 }, cacheDir());
  const other = await buildImage({ seed: 'other', size_bytes: IMAGE_BYTES, layers: 1 }, cacheDir());
  const ref = await lab.push(image, 'miss');
  const common = { product: await productArgv(), igzip: false };
  const peer = await lab.addNode('peer', { ...common, seeds: [other] });
  const store = ['cache_max_bytes = 0'];
  const log = ['level = "warn"'];
  const joined = await lab.addNode('joined', { ...common, line: LINE, config: { store, log } });
  const swarm = ['enabled = false'];
  const alone = await lab.addNode('alone', {
    ...common,
    line: LINE,
    config: { store, log, swarm },
  });
  const host = await lab.network.addHost('own');
  const own = { line: LINE, registry: lab.registry.address } as const;
  const plain = scope.use(await LabContainerd.start(host, tools, own));
  await lab.heldByAll(joined, 1);
  const pullers: Puller[] = [
    { name: "containerd's own store", containerd: plain, times: [] },
    { name: 'without a swarm', containerd: alone.containerd, times: [] },
    { name: 'with a swarm', containerd: joined.containerd, times: [] },
  ];
  for (const { containerd } of pullers) await pull(containerd, ref);
  const rows: Row[] = [];
  for (const rtt_ms of [0, ROUND_TRIP_MS]) {
    await peer.host.shape({ delay_ms: rtt_ms / 2 });
    await untilTrue('the peer is connected', async () => {
      const status = await joined.daemon.status();
      return status.swarm?.peers.some((p) => p.inventoryBlobs > 0 && isUsable(p.state)) ?? false;
    });
    const seen_ms = await roundTripMs(joined.host, peer.host.address);
    note(`miss: connecting to the peer takes ${seen_ms.toFixed(1)} ms`);
    if (seen_ms < rtt_ms) throw new Error(`the peer is only ${seen_ms} ms away, not ${rtt_ms}`);
    for (const puller of pullers) puller.times = [];
    for (let run = 0; run < (quick ? 7 : 25); run++) {
      for (const { containerd, times } of run % 2 === 0 ? pullers : pullers.toReversed()) {
        times.push(await pull(containerd, ref));
      }
    }
    rows.push(...rowsOf(pullers, rtt_ms));
  }
  return rows;
}

async function pull(containerd: LabContainerd, ref: string): Promise<number> {
  const { elapsed_ms } = await containerd.pull(ref);
  await containerd.clear(['default']);
  return elapsed_ms;
}

function rowsOf(pullers: readonly Puller[], rtt_ms: number): Row[] {
  const [plain, alone, joined] = pullers.map(({ times }) => median(times)) as [
    number,
    number,
    number,
  ];
  const where = `peer ${rtt_ms} ms away`;
  return [
    ...pullers.map(({ name, times }) =>
      row(`small image nobody has, ${name}, ${where}`, median(times), 'ms'),
    ),
    row(`extra time of a miss against the door without a swarm, ${where}`, joined - alone, 'ms'),
    row(`extra time of a miss against containerd's own store, ${where}`, joined - plain, 'ms', {
      bound: atMost(BOUND_MS),
    }),
  ];
}

/** What a TCP connection to the peer takes to be made: one round trip. */
async function roundTripMs(host: LabHost, address: string): Promise<number> {
  const connect = `const c = require('net').connect(${SWARM_PORT}, '${address}');
const began = performance.now();
c.once('connect', () => { console.log(performance.now() - began); c.destroy(); });`;
  const { stdout } = await host.run([process.execPath, '-e', connect]);
  return Number(stdout);
}

const isUsable = (state: string): boolean => state === 'ready' || state === 'connected';
