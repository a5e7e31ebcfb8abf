// Which instants of a recording the power is cut at.
import { SeededRandom } from '../fixtures/seeded-random.ts';
import { LOSSES } from './cut.ts';
import type { Cut } from './cut.ts';
import type { Told } from './recording.ts';
import type { LogEntry } from './write-log.ts';

/** A cut "just after" a client was told something is within this, in ms. */
const JUST_AFTER_MS = 800;

/** What of a recording the choice looks at. */
export interface Timeline {
  readonly log: readonly LogEntry[];
  readonly told: readonly Told[];
  /** Entries of the log at the instants of `blobPromises`. */
  readonly promises: readonly number[];
}

/**
 * `count` cuts by chance, the same for the same timeline and seed. Half of them right after containerd promised a
 * blob: nothing the blob needs may come later. The others between any two writes (most while
 * data arrives), at any time (most while the host is idle), and just after a client was told that it has an image.
 */
export function instants(
  { log, told, promises }: Timeline,
  options: { readonly count: number; readonly seed: string },
): readonly Cut[] {
  const random = new SeededRandom(`${options.seed} instants`);
  const begin_ms = log[0]!.at_ms;
  const end_ms = log.at(-1)!.at_ms;
  const entriesAt = (at_ms: number): number => log.filter((entry) => entry.at_ms <= at_ms).length;
  const happy = told.filter((entry) => entry.has);
  const promise = () => promises[random.below(promises.length)]!;
  const ways = [
    promise,
    () => 1 + random.below(log.length),
    promise,
    () => entriesAt(begin_ms + random.below(Math.ceil(end_ms - begin_ms))),
    promise,
    () => entriesAt(happy[random.below(happy.length)]!.at_ms + random.below(JUST_AFTER_MS)),
  ];
  return Array.from({ length: options.count }, (_, i) => ({
    entries: ways[i % ways.length]!(),
    loss: LOSSES[random.below(LOSSES.length)]!,
    seed: `${options.seed} ${i}`,
  }));
}
