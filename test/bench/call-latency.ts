import { createHash, randomBytes, randomUUID } from 'node:crypto';
import type { WriteRequest } from '../../src/content/messages.ts';
import type { Digest } from '../../src/oci/digest.ts';
import { BenchDaemon, BenchDirectory } from './bench-daemon.ts';
import { type BlobFile, makeBlob } from './blob-file.ts';
import { ContentCalls, layerRef } from './content-calls.ts';
import type { BenchContext } from './part.ts';
import { atMost, median, quantile, type Row, row } from './row.ts';

const BLOBS = 8;
/** Containerd's write transaction is open during these calls. */
const BOUND_MS = 10;
const SMALL_BYTES = 4096;
/** One piece, and too large to be fetched as manifests are. */
const PULLED_BYTES = 128 * 1024;
/** Pulls of small blobs begun on the idle daemon, and again while blobs arrive. */
const BEGUN = 40;
/** Pulls joined and left per round. */
const JOINS = 3;
/** Rounds of calls on the idle daemon, the yardstick; some more before them, for the compiler. */
const IDLE_ROUNDS = 200;
const WARM_ROUNDS = 50;

/** A first STAT of a blob that nobody has, one that begins a pull, and one that joins a pull under way. */
const STATS = [
  'STAT#1 of a miss',
  'STAT#1 that begins a pull',
  'STAT#1 that joins a pull',
] as const;
const LOCKED = [...STATS, 'COMMIT', 'Info', 'List', 'Status', 'Abort', 'Delete'] as const;
/** Publishes the blob (verified, forced to the disk, renamed) before its COMMIT. Nothing of containerd is locked, so nothing bounds it. */
const FREE = ['last WRITE'] as const;
const CALLS = [...LOCKED, ...FREE] as const;
type Call = (typeof CALLS)[number];
type Times = Record<Call, number[]>;
/** What a round of calls works with. */
type Round = {
  readonly calls: ContentCalls;
  /** The blobs that are arriving now. */
  readonly arriving: ReadonlySet<BlobFile>;
  readonly times: Times;
};

/** How long the calls take that containerd makes with its database locked, while eight blobs arrive, and on the idle daemon. */
export async function callLatency({ scope, quick, note }: BenchContext): Promise<Row[]> {
  const directory = scope.use(await BenchDirectory.create());
  const size_bytes = (quick ? 128 : 256) * 2 ** 20;
  const blobs: BlobFile[] = [];
  for (let n = 0; n < BLOBS; n++) blobs.push(await makeBlob(directory.path, size_bytes));
  const small: BlobFile[] = [];
  for (let n = 0; n < 2 * BEGUN; n++) small.push(await makeBlob(directory.path, PULLED_BYTES));
  const begun_idle = small.splice(0, BEGUN);
  const holder = scope.use(
    await BenchDaemon.start(directory, {
      name: 'holder',
      blobs: [...blobs, ...begun_idle, ...small],
    }),
  );
  const fetcher = scope.use(
    await BenchDaemon.start(directory, { name: 'fetcher', peers: [holder] }),
  );
  await fetcher.sees(BLOBS + 2 * BEGUN);
  const calls = scope.use(new ContentCalls(fetcher.socket));
  const idle = noTimes();
  const quiet = { calls, arriving: new Set<BlobFile>() };
  for (let n = 0; n < WARM_ROUNDS + IDLE_ROUNDS; n++) {
    const work = { ...quiet, times: n < WARM_ROUNDS ? noTimes() : idle };
    await written(work);
    await joined(work);
  }
  for (const blob of begun_idle) await begun({ ...quiet, times: idle }, blob);

  const busy = noTimes();
  const pullers = scope.use(new ContentCalls(fetcher.socket));
  const left = new Set(blobs);
  const pulls = blobs.map((blob) =>
    pullers.pull(blob, { onBytes: () => left.delete(blob) }).finally(() => left.delete(blob)),
  );
  const arrived = Promise.allSettled(pulls);
  const work = { ...quiet, arriving: left, times: busy };
  const unasked = [...small];
  while (left.size > 0) {
    await written(work);
    const next = unasked.pop();
    if (next !== undefined) await begun(work, next);
    for (let n = 0; n < JOINS; n++) await joined(work);
  }
  // On a machine that has no time left a session may give up; what is measured here are the calls beside it.
  const short = (await arrived).filter((end) => end.status === 'rejected');
  for (const { reason } of short) note(`calls: ${String(reason)}`);
  note(
    `calls: ${busy.Info.length} rounds while ${BLOBS} blobs of ${size_bytes / 2 ** 20} MiB came`,
  );
  note(`calls: ${busy['STAT#1 that joins a pull'].length} of their first STATs joined a pull`);
  return CALLS.flatMap((call) => rowsOf(call, busy[call], idle[call]));
}

function rowsOf(call: Call, busy: readonly number[], idle: readonly number[]): Row[] {
  const name = `${call} while ${BLOBS} blobs arrive`;
  const yardstick = { against: { name: 'p50 idle', value: median(idle) } };
  const isLocked = (LOCKED as readonly Call[]).includes(call);
  return [
    row(`${name}, p50`, median(busy), 'ms', idle.length > 0 ? yardstick : {}),
    row(`${name}, p99`, quantile(busy, 0.99), 'ms', isLocked ? { bound: atMost(BOUND_MS) } : {}),
    row(`${name}, longest`, Math.max(...busy), 'ms'),
  ];
}

async function written({ calls, times }: Round): Promise<void> {
  const data = randomBytes(SMALL_BYTES);
  const digest = `sha256:${createHash('sha256').update(data).digest('hex')}` as Digest;
  const ref = layerRef({ digest });
  const write = calls.write();
  const stat = { action: 'STAT', ref, total: data.length } as const;
  await timed(times, 'STAT#1 of a miss', () => write.ask(stat));
  await timed(times, 'Status', () => calls.unary('Status', { ref }));
  await timed(times, 'last WRITE', () => write.ask({ action: 'WRITE', offset: 0, data }));
  const commit = { action: 'COMMIT', offset: data.length, total: data.length, expected: digest };
  await timed(times, 'COMMIT', () => write.ask(commit as Partial<WriteRequest>));
  await write.end();
  await timed(times, 'Info', () => calls.unary('Info', { digest }));
  await timed(times, 'List', () => calls.stream('List', {}));
  await timed(times, 'Delete', () => calls.unary('Delete', { digest }));
}

/** The first STAT of a blob that a peer has. The writer leaves at once: beside large blobs the small one may come late. */
async function begun({ calls, times }: Round, blob: BlobFile): Promise<void> {
  const write = calls.write();
  const stat = { action: 'STAT', ref: layerRef(blob), total: blob.size_bytes } as const;
  await timed(times, 'STAT#1 that begins a pull', () => write.ask(stat));
  await write.end();
}

async function joined({ calls, arriving, times }: Round): Promise<void> {
  const [blob] = arriving;
  const ref = blob === undefined ? `default/1/upload-${randomUUID()}` : layerRef(blob);
  const write = calls.write();
  const stat = { action: 'STAT', ref, total: blob?.size_bytes ?? SMALL_BYTES } as const;
  const started = performance.now();
  await write.ask(stat);
  const took_ms = performance.now() - started;
  // Only while the pull itself still waits for bytes is it certain that there was one to join.
  if (blob !== undefined && arriving.has(blob)) {
    times['STAT#1 that joins a pull'].push(took_ms);
  }
  await write.end();
  await timed(times, 'Abort', () => calls.unary('Abort', { ref }));
}

async function timed<T>(times: Times, call: Call, act: () => Promise<T>): Promise<T> {
  const started = performance.now();
  const answer = await act();
  times[call].push(performance.now() - started);
  return answer;
}

function noTimes(): Times {
  return Object.fromEntries(CALLS.map((call) => [call, [] as number[]])) as Times;
}
