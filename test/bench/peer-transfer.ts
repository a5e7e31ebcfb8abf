import { BenchDaemon, BenchDirectory } from './bench-daemon.ts';
import { type BlobFile, makeBlob } from './blob-file.ts';
import { ContentCalls } from './content-calls.ts';
import { cpuDuring } from './process-cost.ts';
import { atLeast, median, type Row, row } from './row.ts';
import type { BenchContext } from './part.ts';
import { transportCost, type TransportCostRow } from './transport-cost.ts';

const TRANSPORTS = ['quic', 'tcp'] as const;
type Transport = (typeof TRANSPORTS)[number];
/** Of raw TLS 1.3 and sha256 in the same run. */
const BOUNDS: Readonly<Record<Transport, number>> = { quic: 0.5, tcp: 0.7 };

type Transfer = {
  readonly mb_per_second: number;
  readonly sender_cpu_s: number;
  readonly receiver_cpu_s: number;
};

/**
 * One daemon to another, from containerd's first STAT to its COMMIT: verified piece by piece and as a whole, written and
 * synced. The yardsticks are one raw TLS 1.3 connection, hashed, and the same also written and synced; both send from memory.
 */
export async function peerTransfer({ scope, quick, note }: BenchContext): Promise<Row[]> {
  const runs = quick ? 1 : 3;
  const size_bytes = quick ? 2 ** 30 : 2 ** 31;
  const directory = scope.use(await BenchDirectory.create());
  const blob = await makeBlob(directory.path, size_bytes);
  const holder = scope.use(await BenchDaemon.start(directory, { name: 'holder', blobs: [blob] }));
  const fetchers = new Map<Transport, BenchDaemon>();
  for (const transport of TRANSPORTS) {
    const options = { name: transport, peers: [holder], transports: [transport] };
    const fetcher = scope.use(await BenchDaemon.start(directory, options));
    await fetcher.sees(1);
    fetchers.set(transport, fetcher);
  }
  const raw: TransportCostRow[] = [];
  const transfers = new Map<Transport, Transfer[]>(TRANSPORTS.map((t) => [t, []]));
  for (let run = 0; run < runs; run++) {
    // Interleaved, so that a busy moment of the machine does not hit one of them only.
    raw.push(...(await transportCost({ kinds: ['tls', 'tls-write'], bytes: size_bytes, runs: 1 })));
    for (const transport of TRANSPORTS) {
      const found = await transfer(holder, fetchers.get(transport)!, blob);
      transfers.get(transport)!.push(found);
      note(`transport ${transport}: ${found.mb_per_second.toFixed(0)} MB/s`);
    }
  }
  return rowsOf(raw, transfers, size_bytes);
}

function rowsOf(
  raw: readonly TransportCostRow[],
  transfers: ReadonlyMap<Transport, readonly Transfer[]>,
  size_bytes: number,
): Row[] {
  const speed = (kind: TransportCostRow['kind']): number =>
    median(raw.filter((r) => r.kind === kind).map((r) => r.mb_per_second));
  const tls = { name: 'raw TLS + sha256', value: speed('tls') };
  const written = { name: 'raw TLS + sha256 + write', value: speed('tls-write') };
  const gib = size_bytes / 2 ** 30;
  const rows = [
    row(tls.name, tls.value, 'MB/s'),
    row(written.name, written.value, 'MB/s', { against: tls }),
  ];
  for (const [transport, found] of transfers) {
    const name = `peer to peer over ${transport.toUpperCase()}`;
    const mb_per_second = median(found.map((f) => f.mb_per_second));
    rows.push(
      row(name, mb_per_second, 'MB/s', { against: tls, bound: atLeast(BOUNDS[transport]) }),
      row(name, mb_per_second, 'MB/s', { against: written }),
      row(`${name}, sender`, median(found.map((f) => f.sender_cpu_s)) / gib, 'CPU s/GiB'),
      row(`${name}, receiver`, median(found.map((f) => f.receiver_cpu_s)) / gib, 'CPU s/GiB'),
    );
  }
  return rows;
}

async function transfer(
  holder: BenchDaemon,
  fetcher: BenchDaemon,
  blob: BlobFile,
): Promise<Transfer> {
  using calls = new ContentCalls(fetcher.socket);
  const started = performance.now();
  const pids = [holder.pid, fetcher.pid];
  const { cpu_s } = await cpuDuring(pids, () => calls.pull(blob));
  const seconds = (performance.now() - started) / 1000;
  // Without a cache a deleted blob is gone, and the next run fetches it again.
  await calls.unary('Delete', { digest: blob.digest });
  const [sender_cpu_s = Number.NaN, receiver_cpu_s = Number.NaN] = cpu_s;
  return { mb_per_second: blob.size_bytes / 1e6 / seconds, sender_cpu_s, receiver_cpu_s };
}
