import type { CounterMetric, HistogramMetric, MetricRegister } from '../ops/register.ts';
import type { AnyMethod, ServiceTable } from './service.ts';
import type { CallStatus } from './status.ts';

/** One method of the table with its counts; found once per distinct header block, so that a call costs no look-up by path. */
export type Route = {
  readonly path: string;
  readonly method: AnyMethod;
  /** Immediate answers since the last `flush`: on the hot path a call costs one addition. */
  immediateCalls: number;
};

/** What a server counts besides calls; read at each scrape. */
export type OpenCounts = { readonly connections: number; readonly streams: number };

/** What calls of methods outside the table are counted as: clients choose paths, so these are no label. */
const UNKNOWN_METHOD = 'unknown';

/**
 * First answers take from a look into memory to an fsync, so the buckets stand around the 10 ms that containerd's
 * transactions may be held.
 */
const ANSWER_BUCKETS_SECONDS = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 10];

/** The methods of a table by path, and the metrics of calls to them. Labels come from the table: a closed set. */
export class Routes {
  readonly #routes: ReadonlyMap<string, Route>;
  readonly #calls: CounterMetric<{ method: string; code: CallStatus['code'] }>;
  readonly #answers: HistogramMetric<{ method: string }>;
  #open: () => OpenCounts = () => ({ connections: 0, streams: 0 });

  constructor(modules: { readonly table: ServiceTable; readonly register: MetricRegister }) {
    const { table, register } = modules;
    this.#routes = new Map(
      [...table].map(([path, method]) => [path, { path, method, immediateCalls: 0 }]),
    );
    // Declared before the counter: a scrape collects in this order, and so finds the immediate calls counted.
    register.gauge({
      name: 'rpc_open_connections',
      help: 'Client connections to the daemon socket.',
      collect: (set) => {
        this.flush();
        set({}, this.#open().connections);
      },
    });
    register.gauge({
      name: 'rpc_open_streams',
      help: 'Calls that have not ended.',
      collect: (set) => set({}, this.#open().streams),
    });
    this.#calls = register.counter({
      name: 'rpc_calls_total',
      help: 'Calls by method and how they ended.',
      labels: ['method', 'code'],
    });
    this.#answers = register.histogram({
      name: 'rpc_first_answer_seconds',
      help: 'Time from a request to its answer: unary calls, and the first message of a conversation.',
      labels: ['method'],
      buckets: ANSWER_BUCKETS_SECONDS,
    });
  }

  get all(): Iterable<Route> {
    return this.#routes.values();
  }

  find(path: string): Route | undefined {
    return this.#routes.get(path);
  }

  /** Says where the gauges of open connections and streams are read. */
  watch(open: () => OpenCounts): void {
    this.#open = open;
  }

  /** A call ended. */
  ended(route: Route | undefined, code: CallStatus['code']): void {
    this.#calls.inc({ method: route?.path ?? UNKNOWN_METHOD, code });
  }

  /** A unary call, or the first message of a conversation, was answered after `seconds`. */
  answered(route: Route, seconds: number): void {
    this.#answers.observe({ method: route.path }, seconds);
  }

  /** Moves the counts of immediate answers into the metric: at each scrape and at the end. */
  flush(): void {
    for (const route of this.#routes.values()) {
      if (route.immediateCalls === 0) continue;
      this.#calls.inc({ method: route.path, code: 'ok' }, route.immediateCalls);
      route.immediateCalls = 0;
    }
  }
}
