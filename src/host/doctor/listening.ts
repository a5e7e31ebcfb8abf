import { readdir, readFile, readlink } from 'node:fs/promises';
import { join } from 'node:path';
import { mapBounded } from './map-bounded.ts';

/** A bound socket of this network namespace. */
export type BoundSocket = {
  readonly transport: 'udp' | 'tcp';
  readonly port: number;
  readonly inode: string;
};

/** TCP's LISTEN; UDP's "unconnected", which is how a bound socket shows. */
const LISTENING = { tcp: '0A', udp: '07' } as const;
/** Descriptors looked at; a daemon with more than this has a leak, and the rest does not matter here. */
const DESCRIPTORS_MAX = 8_192;

/** Listening sockets of one table of /proc/net. */
export function parseSockets(table: string, transport: 'udp' | 'tcp'): BoundSocket[] {
  return table
    .split('\n')
    .slice(1)
    .map((line) => line.trim().split(/\s+/))
    .filter((cells) => cells[3] === LISTENING[transport])
    .map((cells) => ({
      transport,
      port: Number.parseInt((cells[1] ?? '').split(':').at(-1) ?? '', 16),
      inode: cells[9] ?? '',
    }))
    .filter((socket) => Number.isSafeInteger(socket.port));
}

/** Every listening TCP and bound UDP socket, IPv4 and IPv6. */
export async function boundSockets(): Promise<BoundSocket[]> {
  const tables = (['udp', 'tcp'] as const).flatMap((transport) =>
    ['', '6'].map(async (family) => {
      const table = await readFile(`/proc/net/${transport}${family}`, 'utf8').catch(() => '');
      return parseSockets(table, transport);
    }),
  );
  return (await Promise.all(tables)).flat();
}

/** Inodes of the sockets a process has open; empty when it cannot be looked at. */
export async function socketsOf(pid: number): Promise<ReadonlySet<string>> {
  const directory = `/proc/${pid}/fd`;
  const names = await readdir(directory).catch(() => []);
  const links = await mapBounded(names.slice(0, DESCRIPTORS_MAX), 16, async (name) =>
    readlink(join(directory, name)).catch(() => ''),
  );
  return new Set(links.flatMap((link) => /^socket:\[(\d+)\]$/.exec(link)?.[1] ?? []));
}
