import { createHash, randomBytes } from 'node:crypto';
import { BenchDaemon, BenchDirectory } from './bench-daemon.ts';
import { type BlobFile, makeBlob } from './blob-file.ts';
import { ContentCalls, layerRef } from './content-calls.ts';
import type { BenchContext } from './part.ts';
import { atMost, median, quantile, type Row, row } from './row.ts';

const BLOBS = 8;
/** Containerd's write transaction is open during these calls. */
const BOUND_MS = 10;
const SMALL_BYTES = 4096;
/** Rounds of calls on the idle daemon, the yardstick; some more before them, for the compiler. */
const IDLE_ROUNDS = 200;
const WARM_ROUNDS = 50;

const CALLS = ['Info', 'STAT#1', 'COMMIT', 'List', 'Status', 'Abort', 'Delete'] as const;
type Call = (typeof CALLS)[number];
type Times = Record<Call, number[]>;

/** How long the calls take that containerd makes with its database locked, while eight blobs arrive, and on the idle daemon. */
export async function callLatency({ scope, quick, note }: BenchContext): Promise<Row[]> {
  const directory = scope.use(await BenchDirectory.create());
  const size_bytes = (quick ? 128 : 256) * 2 ** 20;
  const blobs: BlobFile[] = [];
  for (let n = 0; n < BLOBS; n++) blobs.push(await makeBlob(directory.path, size_bytes));
  const holder = scope.use(await BenchDaemon.start(directory, { name: 'holder', blobs }));
  const fetcher = scope.use(
    await BenchDaemon.start(directory, { name: 'fetcher', peers: [holder] }),
  );
  await fetcher.sees(BLOBS);
  const calls = scope.use(new ContentCalls(fetcher.socket));
  const idle = noTimes();
  for (let n = 0; n < WARM_ROUNDS; n++) await round(calls, noTimes());
  for (let n = 0; n < IDLE_ROUNDS; n++) await round(calls, idle);

  const busy = noTimes();
  const pullers = scope.use(new ContentCalls(fetcher.socket));
  let arriving = BLOBS;
  const pulls = blobs.map((blob) =>
    pullers.pull(blob).finally(() => {
      arriving -= 1;
    }),
  );
  const arrived = Promise.allSettled(pulls);
  while (arriving > 0) await round(calls, busy);
  // On a machine that has no time left a session may give up; what is measured here are the calls beside it.
  const short = (await arrived).filter((end) => end.status === 'rejected');
  for (const { reason } of short) note(`calls: ${String(reason)}`);
  note(
    `calls: ${busy.Info.length} rounds while ${BLOBS} blobs of ${size_bytes / 2 ** 20} MiB came`,
  );
  return CALLS.flatMap((call) => rowsOf(call, busy[call], idle[call]));
}

function rowsOf(call: Call, busy: readonly number[], idle: readonly number[]): Row[] {
  const name = `${call} while ${BLOBS} blobs arrive`;
  return [
    row(`${name}, p50`, median(busy), 'ms', {
      against: { name: 'p50 idle', value: median(idle) },
    }),
    row(`${name}, p99`, quantile(busy, 0.99), 'ms', { bound: atMost(BOUND_MS) }),
    row(`${name}, longest`, Math.max(...busy), 'ms'),
  ];
}

/** One small blob from its first STAT to its deletion, and an ingest that is aborted. */
async function round(calls: ContentCalls, times: Times): Promise<void> {
  const timed = async <T>(call: Call, act: () => Promise<T>): Promise<T> => {
    const started = performance.now();
    const answer = await act();
    times[call].push(performance.now() - started);
    return answer;
  };
  const data = randomBytes(SMALL_BYTES);
  const digest = `sha256:${createHash('sha256').update(data).digest('hex')}`;
  const ref = layerRef({ digest } as BlobFile);
  const write = calls.write();
  const stat = { action: 'STAT', ref, total: data.length } as const;
  await timed('STAT#1', () => write.ask(stat));
  await timed('Status', () => calls.unary('Status', { ref }));
  await write.ask({ action: 'WRITE', offset: 0, data });
  const commit = {
    action: 'COMMIT',
    offset: data.length,
    total: data.length,
    expected: digest,
  } as const;
  await timed('COMMIT', () => write.ask(commit));
  await write.end();
  await timed('Info', () => calls.unary('Info', { digest }));
  await timed('List', () => calls.stream('List', {}));
  await timed('Delete', () => calls.unary('Delete', { digest }));
  const dropped = calls.write();
  const other = `default/1/upload-${digest}`;
  await dropped.ask({ action: 'STAT', ref: other, total: data.length });
  await dropped.ask({ action: 'WRITE', offset: 0, data });
  await dropped.end();
  await timed('Abort', () => calls.unary('Abort', { ref: other }));
}

function noTimes(): Times {
  return Object.fromEntries(CALLS.map((call) => [call, [] as number[]])) as Times;
}
