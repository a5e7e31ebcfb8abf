// What of a logged disk survives a power cut at one instant.
import { SeededRandom } from '../fixtures/seeded-random.ts';
import type { LogEntry } from './write-log.ts';

/**
 * What the disk does with writes that no flush has followed: keeps them all, loses them all, or loses each 4 KiB of them by
 * chance. A disk with a volatile cache may do any of these; what was flushed is always kept.
 */
export const LOSSES = ['none', 'unflushed', 'some'] as const;
export type Loss = (typeof LOSSES)[number];

/** A power cut. */
export interface Cut {
  /** Entries of the log that the disk had acknowledged. */
  readonly entries: number;
  readonly loss: Loss;
  /** Decides what `some` loses. */
  readonly seed: string;
}

/** Bytes of the log that are on the disk after the cut. */
export interface KeptWrite {
  /** On the disk. */
  readonly offset: number;
  readonly length: number;
  /** In the log. */
  readonly data: number;
}

/** What a disk writes at once; file systems count on it not to be torn. */
const BLOCK_BYTES = 4096;

/** The writes that survive `cut`, in the order in which they were made. */
export function keptWrites(log: readonly LogEntry[], cut: Cut): readonly KeptWrite[] {
  const acknowledged = log.slice(0, cut.entries);
  const flushed = acknowledged.findLastIndex((entry) => entry.kind === 'flush');
  const random = new SeededRandom(cut.seed);
  return acknowledged.flatMap((entry, index): readonly KeptWrite[] => {
    if (entry.kind === 'flush') return [];
    if (index < flushed || cut.loss === 'none') return [entry];
    if (cut.loss === 'unflushed') return [];
    return blocksOf(entry).filter(() => random.below(2) === 0);
  });
}

function blocksOf({ offset, length, data }: LogEntry): readonly KeptWrite[] {
  const blocks: KeptWrite[] = [];
  for (let at = 0; at < length; at += BLOCK_BYTES)
    blocks.push({
      offset: offset + at,
      length: Math.min(BLOCK_BYTES, length - at),
      data: data + at,
    });
  return blocks;
}
