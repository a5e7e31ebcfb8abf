import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { link, rm } from 'node:fs/promises';
import { createServer, type Server } from 'node:net';
import { join } from 'node:path';
import { BenchDirectory, daemonArgv, writeDirectory } from './bench-daemon.ts';
import { makeBlob } from './blob-file.ts';
import { ContentCalls } from './content-calls.ts';
import type { BenchContext } from './part.ts';
import { cpuSeconds } from './process-cost.ts';
import { atMost, median, type Row, row } from './row.ts';

const BOUND_MS = 300;
const BLOBS = 200;

type Start = { readonly ms: number; readonly cpu_ms: number };

/**
 * From the start of the process to its first answer on a socket that it inherited, as from systemd, with some blobs in the
 * store. The yardstick is a Node that does nothing.
 */
export async function startTime({ scope, quick }: BenchContext): Promise<Row[]> {
  const directory = scope.use(await BenchDirectory.create());
  const dir = join(directory.path, 'start');
  const blobs = [];
  for (let n = 0; n < BLOBS; n++) blobs.push(await makeBlob(directory.path, 1000));
  await writeDirectory(directory, dir, { name: 'start', blobs });
  const argv = await daemonArgv(join(dir, 'config.toml'));
  const answers: Start[] = [];
  const nothing: number[] = [];
  for (let run = 0; run < (quick ? 3 : 7); run++) {
    nothing.push(await emptyNode());
    answers.push(await firstAnswer(argv, join(dir, `start-${run}`), blobs[0]!.digest));
  }
  const node = { name: 'node that does nothing', value: median(nothing) };
  const ms = median(answers.map((a) => a.ms));
  const cpu_ms = median(answers.map((a) => a.cpu_ms));
  return [
    row('start to first answer', ms, 'ms', { bound: atMost(BOUND_MS) }),
    row('start to first answer', ms, 'ms', { against: node }),
    row('start to first answer, CPU', cpu_ms, 'ms'),
  ];
}

async function emptyNode(): Promise<number> {
  const started = performance.now();
  await once(spawn(process.execPath, ['-e', '0'], { stdio: 'ignore' }), 'exit');
  return performance.now() - started;
}

async function firstAnswer(argv: readonly string[], path: string, digest: string): Promise<Start> {
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
  });
  // Or this process would accept what is meant for the daemon.
  socket.close();
  try {
    using calls = new ContentCalls(path);
    await calls.unary('Info', { digest });
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
