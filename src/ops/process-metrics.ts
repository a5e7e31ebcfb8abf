import { readdirSync } from 'node:fs';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import type { CounterMetric, MetricRegister } from './register.ts';

/** How often the loop is sampled, in ms. Ten wake-ups a second cost less than a thousandth of a core. */
const SAMPLE_MS = 100;
/** Node records the whole gap between two samples in nanoseconds, so an idle loop shows the sampling interval. */
const NS_PER_MS = 1e6;

/** What the process costs and how late its event loop runs. Dispose it to stop the sampling. */
export class ProcessMetrics implements Disposable {
  readonly #delay = monitorEventLoopDelay({ resolution: SAMPLE_MS });
  #last_cpu = process.cpuUsage();

  constructor(register: MetricRegister) {
    this.#delay.enable();
    const cpu = register.counter<{ mode: 'user' | 'system' }>({
      name: 'process_cpu_seconds_total',
      help: 'Processor time used by the daemon.',
      labels: ['mode'],
    });
    register.gauge({
      name: 'process_resident_memory_bytes',
      help: 'Resident memory of the daemon.',
      collect: (set) => set({}, residentBytes()),
    });
    register.gauge<{ space: 'heap' | 'external' | 'array_buffers' }>({
      name: 'process_memory_bytes',
      help: 'Memory in use by space; array_buffers are part of external.',
      labels: ['space'],
      collect: (set) => {
        // The counter has no hook of its own; any scrape comes by here.
        this.#countCpu(cpu);
        // Looking takes a descriptor, and there may be none.
        if (residentBytes() === 0) return;
        const usage = process.memoryUsage();
        set({ space: 'heap' }, usage.heapUsed);
        set({ space: 'external' }, usage.external);
        set({ space: 'array_buffers' }, usage.arrayBuffers);
      },
    });
    register.gauge<{ quantile: '0.5' | '0.99' | '1' }>({
      name: 'process_event_loop_delay_seconds',
      help: 'How late the event loop ran since the last scrape.',
      labels: ['quantile'],
      collect: (set) => {
        set({ quantile: '0.5' }, late_ms(this.#delay.percentile(50)) / 1000);
        set({ quantile: '0.99' }, late_ms(this.#delay.percentile(99)) / 1000);
        set({ quantile: '1' }, late_ms(this.#delay.max) / 1000);
        this.#delay.reset();
      },
    });
    register.gauge({
      name: 'process_open_files',
      help: 'Open file descriptors, sockets included.',
      collect: (set) => {
        try {
          set({}, readdirSync('/proc/self/fd').length);
        } catch {
          // Looking takes a descriptor, and there may be none: the moment in which the others must still be shown.
        }
      },
    });
    register.gauge({
      name: 'process_active_resources',
      help: 'Timers, sockets and requests that keep the event loop busy.',
      collect: (set) => set({}, process.getActiveResourcesInfo().length),
    });
    register
      .gauge({ name: 'process_start_time_seconds', help: 'Start of the process since the epoch.' })
      .set({}, Date.now() / 1000 - process.uptime());
  }

  /** Longest delay of the event loop since the last scrape, in ms. */
  loopLag_ms(): number {
    return late_ms(this.#delay.max);
  }

  [Symbol.dispose](): void {
    this.#delay.disable();
  }

  #countCpu(cpu: CounterMetric<{ mode: 'user' | 'system' }>): void {
    const now = process.cpuUsage();
    cpu.inc({ mode: 'user' }, (now.user - this.#last_cpu.user) / 1e6);
    cpu.inc({ mode: 'system' }, (now.system - this.#last_cpu.system) / 1e6);
    this.#last_cpu = now;
  }
}

/** Resident memory in bytes; 0 while it cannot be read, which takes a descriptor. */
export function residentBytes(): number {
  try {
    return process.memoryUsage.rss();
  } catch {
    return 0;
  }
}

function late_ms(ns: number): number {
  // Before the first sample node reports NaN, 0 or 2^63 depending on the figure.
  return Number.isFinite(ns) && ns < Number.MAX_SAFE_INTEGER
    ? Math.max(0, ns / NS_PER_MS - SAMPLE_MS)
    : 0;
}
