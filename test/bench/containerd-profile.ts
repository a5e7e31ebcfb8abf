// containerd's own account of where its processor time goes: Go's CPU profile, from its debug socket.
import { once } from 'node:events';
import { createWriteStream } from 'node:fs';
import { rm } from 'node:fs/promises';
import { type IncomingMessage, request } from 'node:http';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import type { LabContainerd } from '../host/lab/containerd.ts';
import { runCommand } from '../host/lab/run-command.ts';

/** Regular expressions over the functions of a stack, as pprof takes them. */
const PARTS = {
  /** The client of the content proxy with its transport. Not all of gRPC: an unpack itself runs below a handler of containerd's own server. */
  grpc_client: 'content/proxy|http2Client|loopyWriter',
  read_at: 'remoteReaderAt',
  transport_reader: 'http2Client..reader',
  loopy_writer: 'loopyWriter',
  /** Goroutines that wait and are woken: more of them with every call. */
  scheduler: 'runtime.mcall|runtime.schedule|runtime.findRunnable',
} as const;

/** Seconds of processor time, sampled a hundred times a second. */
export type CpuShares = Readonly<Record<keyof typeof PARTS | 'total', number>>;

/**
 * Where containerd's processor time goes while `work` runs. The profile takes `seconds`, which must be longer than `work`; rejects when it was
 * not, when containerd was started without `debug`, or when Go is not installed, whose tool reads the profile.
 */
export async function cpuShares(
  containerd: LabContainerd,
  { seconds, work }: { readonly seconds: number; readonly work: () => Promise<unknown> },
): Promise<CpuShares> {
  const file = join(containerd.dir, 'cpu.pprof');
  const over = take(containerd.debug_socket, seconds, file).then(() => 'over' as const);
  const done = work().then(() => 'done' as const);
  const first = await Promise.race([done, over]);
  await Promise.all([done, over]);
  if (first === 'over') throw new Error(`what was to be profiled took longer than ${seconds} s`);
  try {
    const found: Partial<Record<keyof CpuShares, number>> = {};
    for (const [part, focus] of Object.entries(PARTS)) {
      const { seen, total } = await read(file, focus);
      found[part as keyof typeof PARTS] = seen;
      found.total = total;
    }
    return found as CpuShares;
  } finally {
    await rm(file);
  }
}

/** containerd sends the first byte when the profile is over. */
async function take(socket: string, seconds: number, file: string): Promise<void> {
  const signal = AbortSignal.timeout((seconds + 30) * 1000);
  const path = `/debug/pprof/profile?seconds=${seconds}`;
  const asked = request({ socketPath: socket, path, signal });
  asked.end();
  const [answer] = (await once(asked, 'response')) as [IncomingMessage];
  if (answer.statusCode !== 200) {
    throw new Error(`containerd gives no profile: status ${answer.statusCode}`);
  }
  await pipeline(answer, createWriteStream(file));
}

async function read(file: string, focus: string): Promise<{ seen: number; total: number }> {
  // Everything is shown, or the sum in the head would leave out what is not.
  const all = ['-nodecount=0', '-nodefraction=0', '-edgefraction=0', '-unit=ms'];
  const { stdout } = await runCommand([
    'go',
    'tool',
    'pprof',
    '-top',
    ...all,
    `-focus=${focus}`,
    file,
  ]);
  const total = /Total samples = ([\d.]+)(m?s)/.exec(stdout);
  if (total === null) throw new Error(`go tool pprof says: ${stdout.slice(0, 500)}`);
  const seen = /nodes accounting for ([\d.]+)(m?s)?,/.exec(stdout);
  return { seen: secondsOf(seen), total: secondsOf(total) };
}

/** `1.2s`, `700ms`; nothing seen is 0. */
function secondsOf(found: RegExpExecArray | null): number {
  if (found === null) return 0;
  return Number(found[1]) / (found[2] === 'ms' ? 1000 : 1);
}
