// The figures of one daemon over a soak, and whether they are flat.
import assert from 'node:assert/strict';
import type { Footprint } from './soaked-host.ts';

const MIB = 1024 * 1024;
/**
 * Cycles after a start in which compiled code, pools and the open files of blobs fill; of a long life its first third, in which the
 * allocator still finds its places: over 300 cycles on two cores resident memory rose until cycle 120 (118 to 224 MiB) and stood at 222
 * to 227 MiB from there, while the heap and the buffers in use did not grow.
 */
const WARM_UP_CYCLES = 30;
const WARM_UP_PART = 1 / 3;
/** A stretch shorter than this says nothing about a slope. */
const LEAST_CYCLES = 20;
/** Memory: a leak of this much in a cycle is found; a short look has the collector's own waves in it. */
const RSS_BYTES_PER_CYCLE = 0.1 * MIB;
const RSS_WAVE_BYTES = 24 * MIB;
/** Connections, open blobs of the moment and epoll; none is a cycle's. */
const FD_WAVE = 12;
const FDS_PER_CYCLE = 0.05;

interface Sample extends Footprint {
  readonly cycle: number;
}

/** Samples at rest, one a cycle. A daemon that was started anew begins a life of its own. */
export class Figures {
  readonly #name: string;
  readonly #samples: Sample[] = [];

  constructor(name: string) {
    this.#name = name;
  }

  add(cycle: number, footprint: Footprint): void {
    this.#samples.push({ cycle, ...footprint });
  }

  /** The last sample, in words. */
  now(): string {
    const last = this.#samples.at(-1);
    if (last === undefined) return `${this.#name}: nothing yet`;
    return `${this.#name} ${(last.rss_bytes / MIB).toFixed(0)} MiB (${(last.anon_bytes / MIB).toFixed(0)} anonymous), ${last.fds} fds`;
  }

  /** Start, middle and end of the whole soak, in words. */
  told(): string {
    const all = this.#samples;
    const marks = [all[0], all[all.length >> 1], all.at(-1)].filter((s) => s !== undefined);
    const peak = Math.max(...all.map((s) => s.peak_rss_bytes));
    const words = marks.map(
      (s) => `cycle ${s.cycle}: ${(s.rss_bytes / MIB).toFixed(0)} MiB, ${s.fds} fds`,
    );
    const lives = new Set(all.map((s) => s.pid)).size;
    const slopes = this.#warm()
      .map((life) => `${(trend(life, (s) => s.rss_bytes) / 1024).toFixed(1)} KiB`)
      .join(', ');
    return `${this.#name}: ${words.join('; ')}; peak ${(peak / MIB).toFixed(0)} MiB; ${lives} lives; slopes a cycle ${slopes || 'none long enough'}`;
  }

  /**
   * No daemon ever passed `most`, and within each life that lasted neither memory nor descriptors climb. A look of some twenty cycles
   * has only the first half of that.
   */
  assertFlat(most: { readonly rss_bytes: number; readonly fds: number }): void {
    for (const { cycle, fds } of this.#samples)
      assert.ok(fds <= most.fds, `${this.#name}: ${fds} descriptors at rest after cycle ${cycle}`);
    for (const { cycle, peak_rss_bytes } of this.#samples) {
      assert.ok(
        peak_rss_bytes < most.rss_bytes,
        `${this.#name}: ${peak_rss_bytes} bytes by cycle ${cycle}`,
      );
    }
    for (const life of this.#warm()) {
      const cycles = life.at(-1)!.cycle - life[0]!.cycle;
      const rss = trend(life, (s) => s.rss_bytes) * cycles;
      const fds = trend(life, (s) => s.fds) * cycles;
      const told = `${this.told()}; over ${cycles} cycles`;
      assert.ok(
        rss <= Math.max(RSS_WAVE_BYTES, RSS_BYTES_PER_CYCLE * cycles),
        `memory climbs: ${told}`,
      );
      assert.ok(fds <= Math.max(FD_WAVE, FDS_PER_CYCLE * cycles), `descriptors climb: ${told}`);
    }
  }

  /** Lives without their warm-up, those that are long enough to tell. */
  #warm(): readonly (readonly Sample[])[] {
    const lives = Map.groupBy(this.#samples, ({ pid }) => pid);
    return [...lives.values()]
      .map((life) => life.slice(Math.max(WARM_UP_CYCLES, Math.floor(life.length * WARM_UP_PART))))
      .filter((life) => life.length >= LEAST_CYCLES);
  }
}

/** Slope of the least squares line, per cycle. */
function trend(samples: readonly Sample[], of: (sample: Sample) => number): number {
  const mean = (values: readonly number[]): number =>
    values.reduce((sum, value) => sum + value, 0) / values.length;
  const x = mean(samples.map((s) => s.cycle));
  const y = mean(samples.map(of));
  let above = 0;
  let below = 0;
  for (const sample of samples) {
    above += (sample.cycle - x) * (of(sample) - y);
    below += (sample.cycle - x) ** 2;
  }
  return above / below;
}
