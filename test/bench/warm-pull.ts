import { buildImage, layerBytes, type TestImage } from '../fixtures/image.ts';
import { LabContainerd } from '../host/lab/containerd.ts';
import { cacheDir, type ContainerdLine, debianTools } from '../host/lab/debian-packages.ts';
import { SwarmLab, type SwarmNode } from '../host/swarm-lab.ts';
import type { BenchContext } from './part.ts';
import { cpuDuring } from './process-cost.ts';
import { atMost, median, type Row, row } from './row.ts';

const IMAGE_BYTES = 290e6;
/** Of a plain pull without igzip, in the same run. */
const BOUNDS: Partial<Record<ContainerdLine, number>> = { '1.7': 1.25, '2.1': 1.4 };
const IGZIP_BOUND = 1;

type Variant = {
  readonly store: 'plain' | 'h2' | 'grpc-js';
  readonly igzip: boolean;
};
type Run = {
  readonly seconds: number;
  readonly containerd_cpu_s: number;
  readonly daemon_cpu_s: number;
};
type Contender = Variant & {
  readonly containerd: LabContainerd;
  /** Undefined for plain. */
  readonly node: SwarmNode | undefined;
  readonly runs: Run[];
};

const VARIANTS: readonly Variant[] = [
  { store: 'plain', igzip: false },
  { store: 'h2', igzip: false },
  { store: 'grpc-js', igzip: false },
  { store: 'plain', igzip: true },
  { store: 'h2', igzip: true },
];
const QUICK_VARIANTS = VARIANTS.filter(({ store, igzip }) => store === 'h2' || !igzip);

/**
 * Pull and unpack of an image whose blobs are in the store already, through the content door, against plain containerd that
 * pulls it from a registry on the same machine. What remains is the price of the door.
 */
export async function warmPull(context: BenchContext): Promise<Row[]> {
  const { scope, quick } = context;
  const tools = await debianTools();
  const image = await buildImage({ seed: 'warm', size_bytes: IMAGE_BYTES, layers: 3 }, cacheDir());
  const rows: Row[] = [];
  for (const line of quick ? (['1.7'] as const) : (['1.7', '2.1'] as const)) {
    const lab = scope.use(await SwarmLab.create(tools));
    rows.push(...(await compare(context, lab, image, line)));
    await lab[Symbol.asyncDispose]();
  }
  return rows;
}

async function compare(
  { scope, quick, note }: BenchContext,
  lab: SwarmLab,
  image: TestImage,
  line: ContainerdLine,
): Promise<Row[]> {
  const ref = await lab.push(image, 'warm');
  const contenders: Contender[] = [];
  for (const [n, variant] of (quick ? QUICK_VARIANTS : VARIANTS).entries()) {
    contenders.push(await contender(scope, lab, { name: `n${n}`, line, image, variant }));
  }
  // The first pull adopts the blobs, the removal after it leaves them in the store.
  for (const { containerd, node } of contenders) {
    if (node === undefined) continue;
    await containerd.pull(ref);
    await containerd.clear();
  }
  for (let run = 0; run < (quick ? 1 : 3); run++) {
    for (const c of contenders) {
      await lab.registry.forget();
      const pids = [c.containerd.process.pid, ...(c.node === undefined ? [] : [c.node.daemon.pid])];
      const { value, cpu_s } = await cpuDuring(pids, () => c.containerd.pull(ref));
      await assertSource(lab, image, c);
      const [containerd_cpu_s = Number.NaN, daemon_cpu_s = 0] = cpu_s;
      await c.containerd.clear();
      const seconds = value.elapsed_ms / 1000;
      c.runs.push({ seconds, containerd_cpu_s, daemon_cpu_s });
      note(`warm ${line} ${nameOf(c)}: ${seconds.toFixed(2)} s`);
    }
  }
  return rowsOf(line, contenders);
}

async function contender(
  scope: AsyncDisposableStack,
  lab: SwarmLab,
  want: { name: string; line: ContainerdLine; image: TestImage; variant: Variant },
): Promise<Contender> {
  const { name, line, image, variant } = want;
  const { store, igzip } = variant;
  const runs: Run[] = [];
  if (store === 'plain') {
    const host = await lab.network.addHost(name);
    const registry = lab.registry.address;
    const containerd = scope.use(
      await LabContainerd.start(host, lab.tools, { line, registry, igzip }),
    );
    return { ...variant, containerd, node: undefined, runs };
  }
  const config = {
    content: [`server = "${store}"`],
    swarm: ['enabled = false'],
    log: ['level = "warn"'],
  };
  const node = await lab.addNode(name, { line, igzip, seeds: [image], config });
  return { ...variant, containerd: node.containerd, node, runs };
}

/** A warm pull takes no layer from the registry, a plain one takes all of them. */
async function assertSource(lab: SwarmLab, image: TestImage, c: Contender): Promise<void> {
  const fetched = await lab.registry.layerBytes(image);
  const expected = c.node === undefined ? layerBytes(image) : 0;
  if (fetched === expected) return;
  throw new Error(
    `${nameOf(c)} took ${fetched} bytes of layers from the registry, not ${expected}`,
  );
}

function rowsOf(line: ContainerdLine, contenders: readonly Contender[]): Row[] {
  const seconds = (c: Contender): number => median(c.runs.map((r) => r.seconds));
  const yardstick = (igzip: boolean): { name: string; value: number } | undefined => {
    const plain = contenders.find((c) => c.store === 'plain' && c.igzip === igzip);
    return plain && { name: `plain${igzip ? ' + igzip' : ''}`, value: seconds(plain) };
  };
  const plain = yardstick(false)!;
  return contenders.flatMap((c) => {
    const name = `warm pull, containerd ${line}, ${nameOf(c)}`;
    const bound = c.igzip ? IGZIP_BOUND : BOUNDS[line]!;
    const bounded = c.store === 'h2' ? { bound: atMost(bound) } : {};
    const rows = [
      c === contenders[0]
        ? row(name, seconds(c), 's')
        : row(name, seconds(c), 's', { against: plain, ...bounded }),
    ];
    const same = yardstick(true);
    if (c.igzip && c.node !== undefined && same !== undefined) {
      rows.push(row(name, seconds(c), 's', { against: same }));
    }
    rows.push(
      row(`${name}, CPU of containerd`, median(c.runs.map((r) => r.containerd_cpu_s)), 's'),
    );
    if (c.node !== undefined) {
      rows.push(row(`${name}, CPU of the daemon`, median(c.runs.map((r) => r.daemon_cpu_s)), 's'));
    }
    return rows;
  });
}

function nameOf({ store, igzip }: Variant): string {
  const base = store === 'plain' ? 'plain' : `content door (${store})`;
  return igzip ? `${base} + igzip` : base;
}
