import type {
  CounterMetric,
  GaugeMetric,
  HistogramMetric,
  MetricRegister,
} from '../../src/ops/register.ts';

type Labels = Readonly<Record<string, string>>;

/** A register whose values a test can read: `register.value('pull_pieces_total', {result: 'ok'})`. */
export class MemoryRegister implements MetricRegister {
  readonly #values = new Map<string, number>();

  value(name: string, labels: Labels = {}): number {
    return this.#values.get(key(name, labels)) ?? 0;
  }

  counter<L extends Labels>(d: { name: string }): CounterMetric<L> {
    return { inc: (labels, value = 1) => this.#add(d.name, labels, value) };
  }

  gauge<L extends Labels>(d: { name: string }): GaugeMetric<L> {
    return { set: (labels, value) => void this.#values.set(key(d.name, labels), value) };
  }

  histogram<L extends Labels>(d: { name: string }): HistogramMetric<L> {
    return { observe: (labels) => this.#add(`${d.name}_count`, labels, 1) };
  }

  #add(name: string, labels: Labels, value: number): void {
    const k = key(name, labels);
    this.#values.set(k, (this.#values.get(k) ?? 0) + value);
  }
}

function key(name: string, labels: Labels): string {
  const sorted = Object.entries(labels).sort(([a], [b]) => a.localeCompare(b));
  return `${name}{${sorted.map(([k, v]) => `${k}=${v}`).join(',')}}`;
}
