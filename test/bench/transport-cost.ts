/**
 * What one verified gigabyte costs on each transport: a sending and a receiving process on loopback, the receiver hashes
 * every byte and compares with the known digest. `sh test/setup/node.sh test/bench/transport-cost.ts [--bytes=N]
 * [--runs=N] [--kinds=tls,quic,...]` prints a table; `transportCost` returns its rows. The receiver dials, as a
 * downloading host does, unless `--push`.
 */
import { fork, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { parseArgs } from 'node:util';
import type { DoneMessage, ReadyMessage, SideOptions, TransportKind } from './transport-side.ts';

type Run = { readonly bytes: number; readonly sender: DoneMessage; readonly receiver: DoneMessage };

export type TransportCostOptions = {
  readonly kinds?: readonly TransportKind[];
  /** Verified bytes per run. */
  readonly bytes?: number;
  /** Runs per kind; the kinds take turns, so that a busy minute of the machine hits all of them. */
  readonly runs?: number;
  /** Bytes per `send`. */
  readonly chunk_bytes?: number;
  /** Streams of one connection that share the bytes. */
  readonly streams?: number;
  /** The sender dials instead of the receiver. */
  readonly push?: boolean;
  /** Overrides of the QUIC configuration. */
  readonly quic?: SideOptions['quic'];
};

export type TransportCostRow = {
  readonly kind: TransportKind;
  /** Medians over the runs; 1 MB = 1e6 bytes, CPU is user + system of that process. */
  readonly mb_per_second: number;
  readonly sender_cpu_s_per_gib: number;
  readonly receiver_cpu_s_per_gib: number;
  readonly receiver_peak_rss_mib: number;
  /** Speed relative to raw TLS in the same call; NaN when that was not measured. */
  readonly ratio_to_tls: number;
  readonly runs_mb_per_second: readonly number[];
};

const ALL_KINDS: readonly TransportKind[] = ['tls', 'quic', 'tcp-tls', 'tcp-noise'];

/** Measures the kinds and resolves with one row for each. Rejects when a run fails or its digest disagrees. */
export async function transportCost(
  options: TransportCostOptions = {},
): Promise<TransportCostRow[]> {
  const kinds = options.kinds ?? ALL_KINDS;
  const results = new Map<TransportKind, Run[]>(kinds.map((kind) => [kind, []]));
  for (let run = 0; run < (options.runs ?? 3); run++) {
    for (const kind of kinds) results.get(kind)!.push(await transfer(kind, options));
  }
  const tls = median((results.get('tls') ?? []).map(speed));
  return kinds.map((kind) => {
    const runs = results.get(kind)!;
    const mb_per_second = median(runs.map(speed));
    return {
      kind,
      mb_per_second,
      sender_cpu_s_per_gib: median(runs.map((r) => perGib(r.sender.cpu_s, r.bytes))),
      receiver_cpu_s_per_gib: median(runs.map((r) => perGib(r.receiver.cpu_s, r.bytes))),
      receiver_peak_rss_mib: median(runs.map((r) => r.receiver.peak_rss_mib)),
      ratio_to_tls: mb_per_second / tls,
      runs_mb_per_second: runs.map(speed),
    };
  });
}

async function transfer(kind: TransportKind, options: TransportCostOptions): Promise<Run> {
  const side: Omit<SideOptions, 'role'> = {
    kind,
    bytes: options.bytes ?? 2 ** 30,
    chunk_bytes: options.chunk_bytes ?? 4 * 2 ** 20,
    streams: kind === 'tls' || kind === 'tls-write' ? 1 : (options.streams ?? 1),
    push: options.push ?? false,
    quic: options.quic ?? {},
  };
  const listener = start({ ...side, role: 'listener' });
  const children = [listener];
  try {
    const { address } = await message<ReadyMessage>(listener);
    const listenerDone = message<DoneMessage>(listener);
    const dialer = start({ ...side, role: 'dialer', address });
    children.push(dialer);
    const [far, near] = await Promise.all([listenerDone, message<DoneMessage>(dialer)]);
    return {
      bytes: side.bytes,
      sender: side.push ? near : far,
      receiver: side.push ? far : near,
    };
  } finally {
    for (const child of children) child.kill();
  }
}

function start(options: SideOptions): ChildProcess {
  return fork(new URL('./transport-side.ts', import.meta.url), [JSON.stringify(options)], {
    execArgv: ['--disable-warning=ExperimentalWarning'],
  });
}

async function message<T>(child: ChildProcess): Promise<T> {
  const ended = new AbortController();
  const exit = once(child, 'exit', { signal: ended.signal }).then(([code]) => {
    throw new Error(`a side of the measurement ended early with ${String(code)}`);
  });
  try {
    const [value] = (await Promise.race([
      once(child, 'message', { signal: ended.signal }),
      exit,
    ])) as [T];
    return value;
  } finally {
    ended.abort();
    exit.catch(() => undefined);
  }
}

const speed = (run: Run): number => run.bytes / 1e6 / run.receiver.seconds;
const perGib = (cpu_s: number, bytes: number): number => cpu_s / (bytes / 2 ** 30);

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN;
}

/** The rows as text for people. */
export function transportCostTable(rows: readonly TransportCostRow[]): string {
  const lines = rows.map((row) =>
    [
      row.kind.padEnd(10),
      row.mb_per_second.toFixed(0).padStart(6),
      row.ratio_to_tls.toFixed(2).padStart(7),
      row.sender_cpu_s_per_gib.toFixed(2).padStart(11),
      row.receiver_cpu_s_per_gib.toFixed(2).padStart(13),
      row.receiver_peak_rss_mib.toFixed(0).padStart(9),
      `  [${row.runs_mb_per_second.map((n) => n.toFixed(0)).join(' ')}]`,
    ].join(' '),
  );
  return ['kind         MB/s  vs tls  snd s/GiB  rcv s/GiB  rcv MiB  runs', ...lines].join('\n');
}

if (import.meta.main) {
  const { values } = parseArgs({
    options: {
      bytes: { type: 'string' },
      runs: { type: 'string' },
      kinds: { type: 'string' },
      chunk: { type: 'string' },
      streams: { type: 'string' },
      push: { type: 'boolean' },
      quic: { type: 'string' },
    },
  });
  const rows = await transportCost({
    ...(values.kinds !== undefined && { kinds: values.kinds.split(',') as TransportKind[] }),
    ...(values.bytes !== undefined && { bytes: Number(values.bytes) }),
    ...(values.runs !== undefined && { runs: Number(values.runs) }),
    ...(values.chunk !== undefined && { chunk_bytes: Number(values.chunk) }),
    ...(values.streams !== undefined && { streams: Number(values.streams) }),
    ...(values.push !== undefined && { push: values.push }),
    ...(values.quic !== undefined && { quic: JSON.parse(values.quic) as SideOptions['quic'] }),
  });
  console.log(transportCostTable(rows));
}
