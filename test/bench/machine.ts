import { readFile } from 'node:fs/promises';
import { cpus, release, totalmem } from 'node:os';

export type Machine = {
  readonly cpu: string;
  readonly cores: number;
  readonly memory_bytes: number;
  readonly kernel: string;
  readonly node: string;
  readonly openssl: string;
  /** Runnable programs beside the bench, averaged over a minute, when it began. */
  readonly load: number;
};

/** The machine the figures are of. */
export async function describeMachine(): Promise<Machine> {
  const load = await readFile('/proc/loadavg', 'utf8').catch(() => '');
  return {
    cpu: cpus()[0]?.model.trim() ?? 'unknown',
    cores: cpus().length,
    memory_bytes: totalmem(),
    kernel: release(),
    node: process.version,
    openssl: process.versions.openssl,
    load: Number(load.split(' ')[0]),
  };
}

/** The machine in one line. */
export function machineLine(m: Machine): string {
  const memory = `${(m.memory_bytes / 2 ** 30).toFixed(0)} GiB`;
  const versions = `Linux ${m.kernel}, Node ${m.node}, OpenSSL ${m.openssl}`;
  return `${m.cpu}, ${m.cores} cores, ${memory}, ${versions}, load ${m.load}`;
}
