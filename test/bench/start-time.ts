import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { link, mkdir, rename, rm, truncate, writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:net';
import { join } from 'node:path';
import { tryCommand } from '../host/lab/run-command.ts';
import { BenchDirectory, daemonArgv, writeDirectory } from './bench-daemon.ts';
import { type BlobFile, makeSmallBlob } from './blob-file.ts';
import { ContentCalls } from './content-calls.ts';
import type { BenchContext } from './part.ts';
import { cpuSeconds } from './process-cost.ts';
import { atMost, median, type Row, row } from './row.ts';

const BOUND_MS = 300;
/** A usual host, and a full one. */
const FEW_BLOBS = 200;
const MANY_BLOBS = 20_000;
const CACHED_BLOBS = 5000;
/** What a daemon that was killed in mid pull left in staging. */
const STAGED_FILES = 20;
const STAGED_FILE_BYTES = 2 ** 30;

type Start = { readonly ms: number; readonly cpu_ms: number };
/** A directory to start in, what is done to it before each start, and how the row calls it. */
type Case = {
  readonly name: string;
  readonly argv: readonly string[];
  readonly dir: string;
  readonly ask: (calls: ContentCalls) => Promise<unknown>;
  readonly before: () => Promise<unknown>;
  /** False: more than the start, so that its bound says nothing. */
  readonly bound?: false;
  /** False: Node compiles all code anew. */
  readonly compiled?: false;
};

/**
 * From the start of the process to its first answer on a socket that it inherited, as from systemd: with some blobs in the store,
 * with many and 20 GiB of a killed daemon's staging, and with many in the cache folder. As in the service's unit, Node keeps the compiled code of
 * earlier starts, but for one row. The yardstick is a Node that does nothing.
 */
export async function startTime({ scope, quick, note }: BenchContext): Promise<Row[]> {
  const directory = scope.use(await BenchDirectory.create());
  const few = await makeBlobs(directory.path, FEW_BLOBS);
  const many = [...few, ...(await makeBlobs(directory.path, MANY_BLOBS - FEW_BLOBS))];
  const full = await settled(directory, many);
  const cases = [
    await settled(directory, few),
    await uncompiled(directory, few),
    full,
    await killed(directory, many),
    await cached(directory, few),
    wholeList(full),
  ];
  const answers = new Map<string, Start[]>(cases.map(({ name }) => [name, []]));
  const nothing: number[] = [];
  const { argv, dir, ask } = full;
  // Leaves compiled code behind.
  await firstAnswer(argv, join(dir, 'start-first'), ask, directory.path);
  for (let run = 0; run < (quick ? 3 : 7); run++) {
    nothing.push(await emptyNode());
    for (const { name, argv, dir, ask, before, compiled } of cases) {
      await before();
      const kept = compiled === false ? undefined : directory.path;
      const found = await firstAnswer(argv, join(dir, `start-${run}`), ask, kept);
      answers.get(name)!.push(found);
      note(`${name}: ${found.ms.toFixed(0)} ms`);
    }
  }
  const node = { name: 'node that does nothing', value: median(nothing) };
  return cases.flatMap(({ name, bound }) => {
    const starts = answers.get(name)!;
    const ms = median(starts.map((start) => start.ms));
    return [
      ...(bound === false ? [] : [row(name, ms, 'ms', { bound: atMost(BOUND_MS) })]),
      row(name, ms, 'ms', { against: node }),
      row(`${name}, CPU`, median(starts.map((start) => start.cpu_ms)), 'ms'),
    ];
  });
}

async function makeBlobs(directory: string, count: number): Promise<BlobFile[]> {
  const blobs: BlobFile[] = [];
  for (let n = 0; n < count; n++) blobs.push(await makeSmallBlob(directory));
  return blobs;
}

async function settled(directory: BenchDirectory, blobs: readonly BlobFile[]): Promise<Case> {
  const name = `start to first answer, ${blobs.length} blobs`;
  const found = await place(directory, `settled-${blobs.length}`, { blobs });
  return { name, ...found, before: async () => undefined };
}

async function uncompiled(directory: BenchDirectory, blobs: readonly BlobFile[]): Promise<Case> {
  const found = await place(directory, 'uncompiled', { blobs });
  const name = `start to first answer, ${blobs.length} blobs, without compiled code of an earlier start`;
  return { name, ...found, before: async () => undefined, compiled: false };
}

/** The same start; asked for all blobs at once, which waits for the scan. */
function wholeList(full: Case): Case {
  const ask = (calls: ContentCalls): Promise<unknown> => calls.stream('List', {});
  return {
    ...full,
    name: full.name.replace('first answer', 'the end of a first List'),
    ask,
    bound: false,
  };
}

async function killed(directory: BenchDirectory, blobs: readonly BlobFile[]): Promise<Case> {
  const found = await place(directory, 'killed', { blobs });
  const staging = join(found.dir, 'content/.layerswarm/staging');
  const sparse = !(await leaveStaged(staging));
  const size = `${(STAGED_FILES * STAGED_FILE_BYTES) / 2 ** 30} GiB${sparse ? ' (sparse)' : ''}`;
  const name = `start to first answer, ${blobs.length} blobs and ${size} staged by a killed daemon`;
  return { name, ...found, before: () => leaveStaged(staging) };
}

async function cached(directory: BenchDirectory, blobs: readonly BlobFile[]): Promise<Case> {
  const found = await place(directory, 'cached', { blobs, cache_max_bytes: 2 ** 40 });
  const cache = join(found.dir, 'content/.layerswarm/cache/sha256');
  await mkdir(cache, { recursive: true });
  for (const { path, digest } of await makeBlobs(directory.path, CACHED_BLOBS)) {
    await rename(path, join(cache, digest.slice('sha256:'.length)));
  }
  const name = `start to first answer, ${blobs.length} blobs and ${CACHED_BLOBS} in the cache folder`;
  return { name, ...found, before: async () => undefined };
}

async function place(
  directory: BenchDirectory,
  name: string,
  options: { readonly blobs: readonly BlobFile[]; readonly cache_max_bytes?: number },
): Promise<Pick<Case, 'argv' | 'dir' | 'ask'>> {
  const dir = join(directory.path, name);
  await writeDirectory(directory, dir, { name, ...options });
  const argv = await daemonArgv(join(dir, 'config.toml'));
  const { digest } = options.blobs[0]!;
  return { argv, dir, ask: (calls) => calls.unary('Info', { digest }) };
}

/** Puts the staged files there; false when the disk had no room and they are sparse. The daemon removes them after its start. */
async function leaveStaged(staging: string): Promise<boolean> {
  await mkdir(staging, { recursive: true });
  let real = true;
  for (let n = 0; n < STAGED_FILES; n++) {
    const path = join(staging, `staged-${n}`);
    const allocated = ['fallocate', '-l', `${STAGED_FILE_BYTES}`, path];
    if (real && (await tryCommand(allocated)).code === 0) continue;
    real = false;
    await writeFile(path, '');
    await truncate(path, STAGED_FILE_BYTES);
  }
  return real;
}

async function emptyNode(): Promise<number> {
  const started = performance.now();
  await once(spawn(process.execPath, ['-e', '0'], { stdio: 'ignore' }), 'exit');
  return performance.now() - started;
}

async function firstAnswer(
  argv: readonly string[],
  path: string,
  ask: Case['ask'],
  kept: string | undefined,
): Promise<Start> {
  // Closing the socket here removes its first name, so clients use a second one.
  const socket = createServer();
  socket.listen(`${path}-own`);
  await once(socket, 'listening');
  await link(`${path}-own`, path);
  const started = performance.now();
  // The pid in LISTEN_PID is known only to the process itself; exec keeps it.
  const script = 'LISTEN_PID=$$ LISTEN_FDS=1 exec "$@"';
  const child = spawn('sh', ['-c', script, 'sh', ...argv], {
    stdio: ['ignore', 'inherit', 'inherit', descriptorOf(socket)],
    env: { ...process.env, ...(kept !== undefined && { NODE_COMPILE_CACHE: join(kept, 'v8') }) },
  });
  // Or this process would accept what is meant for the daemon.
  socket.close();
  try {
    using calls = new ContentCalls(path);
    await ask(calls);
    const ms = performance.now() - started;
    // A little more than the start: the process goes on loading its swarm while it is being looked at.
    return { ms, cpu_ms: (await cpuSeconds(child.pid!)) * 1000 };
  } finally {
    child.kill('SIGTERM');
    await once(child, 'exit');
    await rm(path);
  }
}

function descriptorOf(server: Server): number {
  return (server as Server & { readonly _handle: { readonly fd: number } })._handle.fd;
}
