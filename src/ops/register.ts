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
 * A room that is started anew declares its metrics again: counters and histograms go on, gauges ask the newest `collect`.
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

type Collect<L extends Labels> = (set: (labels: L, value: number) => void) => void;

/** The real register over prom-client, with the text that `/metrics` serves. */
export class PrometheusRegister implements MetricRegister, CounterTotals {
  readonly #registry = new Registry();
  /** What each name was declared as; a name stays what it was first. */
  readonly #counters = new Map<string, CounterMetric>();
  readonly #histograms = new Map<string, HistogramMetric>();
  readonly #gauges = new Map<string, { readonly metric: GaugeMetric; collect?: Collect<Labels> }>();
  /** One number for each declared counter. */
  readonly #totals = new Map<string, { value: number }>();

  counter<L extends Labels>(d: Declared<L>): CounterMetric<L> {
    return once(this.#counters, d.name, () => {
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
    });
  }

  gauge<L extends Labels>(d: Declared<L> & { readonly collect?: Collect<L> }): GaugeMetric<L> {
    const gauges = this.#gauges;
    const { name, collect } = d;
    const gauge = once<{ readonly metric: GaugeMetric; collect?: Collect<Labels> }>(
      gauges,
      name,
      () => {
        const metric = new Gauge({
          ...this.#common(d),
          ...(collect !== undefined && {
            collect(this: Gauge) {
              this.reset();
              gauges.get(name)?.collect?.((labels, value) => this.set(labels, value));
            },
          }),
        });
        const set: GaugeMetric['set'] = (labels, value) => metric.set(labels, value);
        return { metric: { set } };
      },
    );
    // Only ever called with labels of this very declaration.
    if (collect !== undefined) gauge.collect = collect;
    return gauge.metric;
  }

  histogram<L extends Labels>(
    d: Declared<L> & { readonly buckets: readonly number[] },
  ): HistogramMetric<L> {
    return once(this.#histograms, d.name, () => {
      const metric = new Histogram({ ...this.#common(d), buckets: [...d.buckets] });
      return { observe: (labels, value) => metric.observe(labels, value) };
    });
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

/** What the map has under the name; made the first time. */
function once<T>(map: Map<string, T>, name: string, make: () => T): T {
  const found = map.get(name);
  if (found !== undefined) return found;
  const made = make();
  map.set(name, made);
  return made;
}
