import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { BenchDaemon, BenchDirectory } from './bench-daemon.ts';
import { makeBlob } from './blob-file.ts';
import { ContentCalls } from './content-calls.ts';
import type { CrowdOptions } from './crowd.ts';
import type { BenchContext } from './part.ts';
import { cpuSeconds, forgetPeak, residentMb } from './process-cost.ts';
import { atMost, type Row, row } from './row.ts';

const IDLE_MB = 100;
const BUSY_MB = 200;
const IDLE_CPU_PERCENT = 1;
const CROWD = 20;
/** Start-up is over by then. */
const SETTLE_MS = 10_000;

/** Memory of an idle daemon, and of one that receives a 2 GiB blob while it serves another; CPU with 20 peers. */
export async function footprint(context: BenchContext): Promise<Row[]> {
  return [...(await idleRows(context)), ...(await transferRows(context))];
}

async function idleRows({ scope, quick, note }: BenchContext): Promise<Row[]> {
  const directory = scope.use(await BenchDirectory.create());
  const daemon = scope.use(await BenchDaemon.start(directory, { name: 'idle' }));
  await sleep(SETTLE_MS);
  const alone = await residentMb(daemon.pid);
  const crowd = scope.use(await Crowd.start(directory, daemon, CROWD));
  await daemon.meets(CROWD);
  await sleep(SETTLE_MS);
  const before = await cpuSeconds(daemon.pid);
  const seconds = quick ? 10 : 20;
  await sleep(seconds * 1000);
  const percent = (((await cpuSeconds(daemon.pid)) - before) / seconds) * 100;
  const joined = await residentMb(daemon.pid);
  note(`memory: idle ${alone.now.toFixed(0)} MB, with ${CROWD} peers ${joined.now.toFixed(0)} MB`);
  crowd[Symbol.dispose]();
  return [
    row('memory, idle', alone.now, 'MB RSS', { bound: atMost(IDLE_MB) }),
    row(`memory, idle with ${CROWD} peers`, joined.now, 'MB RSS', { bound: atMost(IDLE_MB) }),
    row(`CPU, idle with ${CROWD} peers`, percent, '% of a core', {
      bound: atMost(IDLE_CPU_PERCENT),
    }),
  ];
}

async function transferRows({ scope, quick, note }: BenchContext): Promise<Row[]> {
  const directory = scope.use(await BenchDirectory.create());
  const size_bytes = quick ? 2 ** 30 : 2 ** 31;
  const blobs = [
    await makeBlob(directory.path, size_bytes),
    await makeBlob(directory.path, size_bytes),
  ];
  const rows: Row[] = [];
  for (const transport of ['quic', 'tcp'] as const) {
    const transports = [transport];
    const start = async (name: string, more: object): Promise<BenchDaemon> =>
      scope.use(
        await BenchDaemon.start(directory, { name: `${name}-${transport}`, transports, ...more }),
      );
    const holder = await start('holder', { blobs });
    const middle = await start('middle', { peers: [holder] });
    await middle.sees(blobs.length);
    await using calls = new AsyncDisposableStack();
    const first = calls.use(new ContentCalls(middle.socket));
    await forgetPeak(middle.pid);
    await first.pull(blobs[0]!);
    const arrived = await residentMb(middle.pid);
    const last = await start('last', { peers: [middle] });
    await last.sees(1);
    const second = calls.use(new ContentCalls(last.socket));
    await Promise.all([first.pull(blobs[1]!), second.pull(blobs[0]!)]);
    const served = await residentMb(middle.pid);
    const gib = `${size_bytes / 2 ** 30} GiB`;
    const upper = transport.toUpperCase();
    note(
      `memory over ${upper}: peak ${arrived.peak.toFixed(0)}, then ${served.peak.toFixed(0)} MB`,
    );
    rows.push(
      row(`memory, ${gib} arriving over ${upper}`, arrived.peak, 'MB peak RSS', {
        bound: atMost(BUSY_MB),
      }),
      row(`memory, ${gib} arriving and served on over ${upper}`, served.peak, 'MB peak RSS', {
        bound: atMost(BUSY_MB),
      }),
      row(`memory, ${upper} after it`, served.now, 'MB RSS'),
    );
    for (const daemon of [last, middle, holder]) await daemon.stop();
  }
  return rows;
}

/** Peers of the daemon, all in one other process. */
class Crowd implements Disposable {
  readonly #child: ChildProcess;

  private constructor(child: ChildProcess) {
    this.#child = child;
  }

  static async start(
    directory: BenchDirectory,
    daemon: BenchDaemon,
    peers: number,
  ): Promise<Crowd> {
    const options: CrowdOptions = {
      peers,
      bootstrap: `127.0.0.1:${await daemon.port()}`,
      cluster_key: directory.cluster_key,
    };
    const child = fork(new URL('./crowd.ts', import.meta.url), [JSON.stringify(options)], {
      execArgv: ['--disable-warning=ExperimentalWarning'],
    });
    const crowd = new Crowd(child);
    // Its only message: all peers listen.
    await once(child, 'message');
    return crowd;
  }

  [Symbol.dispose](): void {
    this.#child.kill('SIGTERM');
  }
}
