import type { DiskState, RepairDaemon } from '../repair/repair.ts';
import type { Check, DoctorContext } from './context.ts';
import { type Finding, findingOf, type Remark, remark } from './finding.ts';
import { asker, knownBlobs } from './images.ts';

/** Blobs named one by one; the others are counted. */
const NAMED_MAX = 20;
/** Reading every blob takes as long as the disk takes; each single read has a deadline of its own. */
const DEADLINE_MS = 12 * 60 * 60_000;

type Found = { readonly digest: string; readonly state: DiskState };

export type BlobsFacts =
  | { readonly kind: 'no-daemon' }
  | {
      readonly kind: 'looked';
      /** Blobs the daemon knows to be lost. */
      readonly lost: readonly string[];
      readonly lost_total: number;
      /** With `--read-all`: blobs that containerd has a record of and that were read to the last byte. */
      readonly read: number | undefined;
      /** Those of them that are gone or wrong, beyond what the daemon knew. */
      readonly wrong: readonly Found[];
    };

/** Is there a blob that containerd believes to have and that is gone or wrong on disk? */
export const blobsCheck: Check<BlobsFacts> = {
  deadline_ms: DEADLINE_MS,
  gather: async (context, signal) => {
    const daemon = await context.daemon();
    if (daemon.kind !== 'answers' || daemon.view.blobs === null) return { kind: 'no-daemon' };
    const { lost, lostCount } = daemon.view.blobs;
    const known = lost.map(({ digest }) => digest);
    const facts = { kind: 'looked', lost: known, lost_total: lostCount } as const;
    if (!context.read_all) return { ...facts, read: undefined, wrong: [] };
    using door = await context.openDaemon(context.config.config.content.socket_path);
    return { ...facts, ...(await readAll(context, door, known, signal)) };
  },
  judge: judgeBlobs,
};

async function readAll(
  context: DoctorContext,
  door: RepairDaemon,
  lost: readonly string[],
  signal: AbortSignal,
): Promise<{ read: number; wrong: readonly Found[] }> {
  const probe = await context.containerd();
  if (probe.kind === 'absent') return { read: 0, wrong: [] };
  const digests = await knownBlobs(asker(context, probe, signal));
  const wrong: Found[] = [];
  for (const digest of digests) {
    if (lost.includes(digest)) continue;
    const state = await door.check(digest, signal);
    if (state !== 'right') wrong.push({ digest, state });
  }
  return { read: digests.size, wrong };
}

export function judgeBlobs(facts: BlobsFacts): Finding {
  if (facts.kind === 'no-daemon') {
    const text = 'no daemon answers, so nobody knows which blobs are lost';
    return findingOf('blobs', '', [remark('note', text, 'layerswarm doctor --only socket')], {});
  }
  const { lost, lost_total, read, wrong } = facts;
  const remarks: Remark[] = [
    ...lost.map((digest) => lostRemark(digest, 'is gone or wrong on disk')),
    ...wrong.map(({ digest, state }) =>
      lostRemark(digest, state === 'absent' ? 'is gone from disk' : 'is wrong on disk'),
    ),
  ];
  const named = remarks.slice(0, NAMED_MAX);
  const rest = lost_total + wrong.length - named.length;
  if (rest > 0) {
    const text = `${rest} further blobs are gone or wrong on disk`;
    named.push(remark('fail', text, 'layerswarm repair'));
  }
  const fine =
    read === undefined
      ? 'the daemon misses no blob that containerd believes to have'
      : `every blob that containerd believes to have is right, read to its last byte (${read})`;
  return findingOf('blobs', fine, named, {
    lost: lost.slice(0, NAMED_MAX),
    lost_total,
    read: read ?? null,
    wrong: wrong.slice(0, NAMED_MAX).map((one) => ({ ...one })),
  });
}

function lostRemark(digest: string, how: string): Remark {
  const text = `blob ${digest} ${how}; containerd believes to have it, and without a peer that has it no pull brings it back`;
  return remark('fail', text, `layerswarm repair ${digest}`);
}
