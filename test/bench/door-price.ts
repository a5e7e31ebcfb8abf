import { setTimeout as sleep } from 'node:timers/promises';
import { buildImage, layerBytes, type TestImage } from '../fixtures/image.ts';
import { LabContainerd } from '../host/lab/containerd.ts';
import { cacheDir, type ContainerdLine, debianTools } from '../host/lab/debian-packages.ts';
import { runCommand } from '../host/lab/run-command.ts';
import { SwarmLab } from '../host/swarm-lab.ts';
import { cpuShares } from './containerd-profile.ts';
import type { BenchContext } from './part.ts';
import { cpuDuring } from './process-cost.ts';
import { productArgv } from './product.ts';
import { atMost, median, type Row, row } from './row.ts';

const IMAGE_BYTES = 290e6;
/** Of a pull and unpack with containerd's own store, both with the blobs here. */
const BOUNDS: Partial<Record<ContainerdLine, number>> = { '1.7': 1.25, '2.1': 1.4 };
/** Holds the blobs, so that they stay when the image goes. */
const KEEPER = 'keeper';
/** What the last run wrote is on the disk by then. */
const PAUSE_MS = 1500;

type Kind = 'built-in store' | 'content door' | 'built-in store with a download';
type Run = { readonly seconds: number; readonly cpu_s: readonly number[] };
type Contender = {
  readonly kind: Kind;
  readonly containerd: LabContainerd;
  /** containerd's, then the daemon's where there is one. */
  readonly pids: readonly number[];
  readonly runs: Run[];
};

/**
 * The price of the content door: pull and unpack of an image whose blobs are here already, through the door against containerd's own
 * store, in turns. And the same against a plain pull that has to download them from a registry on this machine, which is what a host
 * without layerswarm would do.
 */
export async function doorPrice(context: BenchContext): Promise<Row[]> {
  const { scope, quick } = context;
  const tools = await debianTools();
  const image = await buildImage({ seed: 'warm', size_bytes: IMAGE_BYTES, layers: 3 }, cacheDir());
  const rows: Row[] = [];
  for (const line of quick ? (['2.1'] as const) : (['1.7', '2.1'] as const)) {
    for (const igzip of quick ? [false] : [false, true]) {
      const lab = scope.use(await SwarmLab.create(tools));
      rows.push(...(await compare(context, lab, { image, line, igzip })));
      await lab[Symbol.asyncDispose]();
    }
  }
  return rows;
}

type What = { readonly image: TestImage; readonly line: ContainerdLine; readonly igzip: boolean };

async function compare(context: BenchContext, lab: SwarmLab, what: What): Promise<Row[]> {
  const { scope, quick, note } = context;
  const { image, line, igzip } = what;
  const title = `containerd ${line}${igzip ? ' + igzip' : ''}`;
  const ref = await lab.push(image, 'warm');
  const contenders: Contender[] = [
    await plain(scope, lab, { name: 'own', what, ref }),
    await door(lab, { what, ref }),
    await plain(scope, lab, { name: 'load', what }),
  ];
  const rounds = quick ? 3 : 7;
  for (let n = 0; n < rounds; n++) {
    // Whoever comes first differs from round to round.
    for (const c of n % 2 === 0 ? contenders : contenders.toReversed()) {
      const run = await measured(lab, { c, image, ref });
      c.runs.push(run);
      note(`${title}, ${c.kind}: ${run.seconds.toFixed(2)} s`);
    }
  }
  const rows = rowsOf(contenders, { title, line });
  for (const c of contenders.slice(0, 2)) rows.push(...(await profileRows(c, { title, ref })));
  return rows;
}

/** One pull, after everything earlier is on the disk; the image is gone afterwards, its kept blobs are not. */
async function measured(
  lab: SwarmLab,
  { c, image, ref }: { c: Contender; image: TestImage; ref: string },
): Promise<Run> {
  await calm();
  await lab.registry.forget();
  const { value, cpu_s } = await cpuDuring(c.pids, () => c.containerd.pull(ref));
  const fetched = await lab.registry.layerBytes(image);
  const expected = c.kind === 'built-in store with a download' ? layerBytes(image) : 0;
  if (fetched !== expected) {
    throw new Error(`${c.kind} took ${fetched} bytes of layers from the registry, not ${expected}`);
  }
  await c.containerd.clear(['default']);
  return { seconds: value.elapsed_ms / 1000, cpu_s };
}

async function calm(): Promise<void> {
  await runCommand(['sync'], { deadline_ms: 120_000 });
  await sleep(PAUSE_MS);
}

/** With `ref` its blobs are here; without, every pull downloads. */
async function plain(
  scope: AsyncDisposableStack,
  lab: SwarmLab,
  { name, what, ref }: { name: string; what: What; ref?: string },
): Promise<Contender> {
  const { line, igzip } = what;
  const host = await lab.network.addHost(name);
  const registry = lab.registry.address;
  const options = { line, registry, igzip, debug: true };
  const containerd = scope.use(await LabContainerd.start(host, lab.tools, options));
  if (ref !== undefined) await containerd.fetch(ref, KEEPER);
  const kind = ref === undefined ? 'built-in store with a download' : 'built-in store';
  return { kind, containerd, pids: [containerd.process.pid], runs: [] };
}

async function door(lab: SwarmLab, { what, ref }: { what: What; ref: string }): Promise<Contender> {
  const { line, igzip } = what;
  const config = { swarm: ['enabled = false'], log: ['level = "warn"'] };
  const product = await productArgv();
  const node = await lab.addNode('door', { line, igzip, config, product, debug: true });
  const { containerd, daemon } = node;
  await containerd.fetch(ref, KEEPER);
  return { kind: 'content door', containerd, pids: [containerd.process.pid, daemon.pid], runs: [] };
}

function rowsOf(
  contenders: readonly Contender[],
  { title, line }: { title: string; line: ContainerdLine },
): Row[] {
  const rows = contenders.flatMap(({ kind, runs }) => {
    const name = `pull and unpack, ${title}, ${kind}`;
    const cpu = (index: number): number => median(runs.map((r) => r.cpu_s[index] ?? Number.NaN));
    const of_daemon =
      kind === 'content door' ? [row(`${name}, CPU of the daemon`, cpu(1), 's')] : [];
    return [
      row(name, median(runs.map((r) => r.seconds)), 's'),
      row(`${name}, CPU of containerd`, cpu(0), 's'),
      ...of_daemon,
    ];
  });
  const [own, through, load] = contenders.map(({ runs }) => runs.map((r) => r.seconds));
  const ratios = through!.map((seconds, n) => seconds / own![n]!);
  const name = `${title}, content door against built-in store, blobs here on both sides`;
  const bound = atMost(BOUNDS[line]!);
  return [
    ...rows,
    row(`${name}, median of ${ratios.length} pairs`, median(ratios), 'x', { bound }),
    row(`${name}, lowest pair`, Math.min(...ratios), 'x'),
    row(`${name}, highest pair`, Math.max(...ratios), 'x'),
    row(
      `${title}, content door without a download against a plain pull with one`,
      median(through!.map((seconds, n) => seconds / load![n]!)),
      'x',
    ),
  ];
}

/** The steadier witness: the kernel's cost of making files, half of an unpack, varies by a factor of two, the gRPC client's does not. */
async function profileRows(
  { kind, containerd, runs }: Contender,
  { title, ref }: { title: string; ref: string },
): Promise<Row[]> {
  await calm();
  const longest = Math.max(...runs.map((r) => r.seconds));
  const seconds = Math.ceil(longest * 2 + 5);
  const shares = await cpuShares(containerd, { seconds, work: () => containerd.pull(ref) });
  await containerd.clear(['default']);
  const name = `containerd's own CPU profile, ${title}, ${kind}`;
  const { total, grpc_client, read_at, transport_reader, loopy_writer, scheduler } = shares;
  const rows = [
    row(`${name}, all samples`, total, 's'),
    row(`${name}, gRPC client`, grpc_client, 's'),
    row(`${name}, share of gRPC client`, (grpc_client / total) * 100, '%'),
    row(`${name}, Go's scheduler`, scheduler, 's'),
  ];
  if (kind !== 'content door') return rows;
  return [
    ...rows,
    row(`${name}, gRPC: ReadAt`, read_at, 's'),
    row(`${name}, gRPC: transport reader`, transport_reader, 's'),
    row(`${name}, gRPC: loopy writer`, loopy_writer, 's'),
  ];
}
