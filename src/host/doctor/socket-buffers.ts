import { access, readFile } from 'node:fs/promises';
import type { Check } from './context.ts';
import { type Finding, findingOf, type Remark, remark } from './finding.ts';

/** What the QUIC transport asks for per socket, in bytes; the kernel gives at most its own bound. */
const WANTED_BYTES = 4 * 1024 * 1024;
/** Brought by the packages. */
const DROP_IN = '/usr/lib/sysctl.d/50-layerswarm.conf';

export type SocketBufferFacts = {
  /** False without a swarm over QUIC. */
  readonly uses_quic: boolean;
  /** undefined where the kernel does not show it, as in some network namespaces. */
  readonly rmem_max: number | undefined;
  readonly wmem_max: number | undefined;
  readonly has_drop_in: boolean;
};

/** May QUIC's sockets be as large as it wants them? Small ones lose packets at high rates. */
export const socketBuffersCheck: Check<SocketBufferFacts> = {
  deadline_ms: 1_000,
  gather: async ({ config }) => {
    const { enabled, transports } = config.config.swarm;
    const has_drop_in = await access(DROP_IN).then(
      () => true,
      () => false,
    );
    const [rmem_max, wmem_max] = await Promise.all([limit('rmem_max'), limit('wmem_max')]);
    return { uses_quic: enabled && transports.includes('quic'), rmem_max, wmem_max, has_drop_in };
  },
  judge: judgeSocketBuffers,
};

async function limit(name: string): Promise<number | undefined> {
  const text = await readFile(`/proc/sys/net/core/${name}`, 'utf8').catch(() => '');
  return /^\d+$/.test(text.trim()) ? Number(text) : undefined;
}

export function judgeSocketBuffers(facts: SocketBufferFacts): Finding {
  const fine = facts.uses_quic
    ? `the kernel allows socket buffers of ${WANTED_BYTES >> 20} MiB`
    : 'no QUIC here, so its socket buffers do not matter';
  const remarks: Remark[] = [];
  const limits = [
    ['rmem_max', facts.rmem_max],
    ['wmem_max', facts.wmem_max],
  ] as const;
  const small = limits.filter(([, bytes]) => bytes !== undefined && bytes < WANTED_BYTES);
  if (facts.uses_quic && small.length > 0) {
    const shown = small.map(([name, bytes]) => `net.core.${name} is ${bytes ?? 0}`).join(', ');
    const text = `${shown}, QUIC wants ${WANTED_BYTES}: at high rates packets are lost`;
    const mend = facts.has_drop_in
      ? ['sysctl --system']
      : small.map(([name]) => `sysctl -w net.core.${name}=${WANTED_BYTES}`);
    remarks.push(remark('warn', text, ...mend));
  } else if (facts.uses_quic && limits.some(([, bytes]) => bytes === undefined)) {
    const text =
      'this kernel does not show net.core.rmem_max here (a network namespace); the host has them';
    remarks.push(remark('note', text));
  }
  return findingOf('socket-buffers', fine, remarks, { ...facts, wanted_bytes: WANTED_BYTES });
}
