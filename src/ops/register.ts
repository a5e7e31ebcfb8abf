import { Counter, Gauge, Histogram, Registry } from 'prom-client';

type Labels = Readonly<Record<string, string>>;
/** Of a metric without labels: pass `{}`. */
type NoLabels = Readonly<Record<string, never>>;

export interface CounterMetric<L extends Labels = Labels> {
  inc(labels: L, value?: number): void;
}
export interface GaugeMetric<L extends Labels = Labels> {
  set(labels: L, value: number): void;
}
export interface HistogramMetric<L extends Labels = Labels> {
  observe(labels: L, value: number): void;
}

type Declared<L extends Labels> = {
  /** Without the `layerswarm_` prefix; counters end in `_total`, units are `_seconds` and `_bytes`. */
  readonly name: string;
  readonly help: string;
  readonly labels?: readonly (keyof L & string)[];
};

/**
 * Where a room declares its metrics, as typed literals beside its code:
 * `export type PullMetrics = ReturnType<typeof createPullMetrics>`. Every room gets one; there is no "no metrics".
 */
export interface MetricRegister {
  counter<L extends Labels = NoLabels>(d: Declared<L>): CounterMetric<L>;
  /** `collect` is called at each scrape, for values that live elsewhere. */
  gauge<L extends Labels = NoLabels>(
    d: Declared<L> & { readonly collect?: (set: (labels: L, value: number) => void) => void },
  ): GaugeMetric<L>;
  histogram<L extends Labels = NoLabels>(
    d: Declared<L> & { readonly buckets: readonly number[] },
  ): HistogramMetric<L>;
}

/** What a counter has counted, for those who show it to people. */
export interface CounterTotals {
  /** Sum over all labels since the start; `name` without the prefix. 0 for a counter that was never declared. */
  total(name: string): number;
}

/** The real register over prom-client, with the text that `/metrics` serves. */
export class PrometheusRegister implements MetricRegister, CounterTotals {
  readonly #registry = new Registry();
  /** One number for each declared counter. */
  readonly #totals = new Map<string, { value: number }>();

  counter<L extends Labels>(d: Declared<L>): CounterMetric<L> {
    const metric = new Counter(this.#common(d));
    // A counter without labels shows 0 from the start, so that rates exist before the first event.
    if ((d.labels ?? []).length === 0) metric.inc(0);
    const total = { value: 0 };
    this.#totals.set(d.name, total);
    return {
      inc: (labels, value = 1) => {
        total.value += value;
        metric.inc(labels, value);
      },
    };
  }

  gauge<L extends Labels>(
    d: Declared<L> & { readonly collect?: (set: (labels: L, value: number) => void) => void },
  ): GaugeMetric<L> {
    const { collect } = d;
    const metric = new Gauge({
      ...this.#common(d),
      ...(collect !== undefined && {
        collect(this: Gauge) {
          this.reset();
          collect((labels, value) => this.set(labels, value));
        },
      }),
    });
    return { set: (labels, value) => metric.set(labels, value) };
  }

  histogram<L extends Labels>(
    d: Declared<L> & { readonly buckets: readonly number[] },
  ): HistogramMetric<L> {
    const metric = new Histogram({ ...this.#common(d), buckets: [...d.buckets] });
    return { observe: (labels, value) => metric.observe(labels, value) };
  }

  total(name: string): number {
    return this.#totals.get(name)?.value ?? 0;
  }

  /** Prometheus text exposition of everything declared. */
  text(): Promise<string> {
    return this.#registry.metrics();
  }

  #common(d: { name: string; help: string; labels?: readonly string[] | undefined }): {
    name: string;
    help: string;
    labelNames: string[];
    registers: Registry[];
  } {
    return {
      name: `layerswarm_${d.name}`,
      help: d.help,
      labelNames: [...(d.labels ?? [])],
      registers: [this.#registry],
    };
  }
}
