import type { Clock } from '../base/clock.ts';
import type { Logger } from './logger.ts';
import type { MetricRegister } from './register.ts';

/**
 * What may stand against a daemon that serves containerd all the same: the closed list, which is also the label of the metric.
 *
 * - `config`         the configuration file cannot be used; the last good one, or its usable sections, are in force
 * - `cluster_key`    the cluster key file is missing or cannot be used
 * - `swarm_listen`   the swarm cannot listen on its port or addresses
 * - `swarm_failed`   the swarm did not start for another reason, or a defect in it ended it
 * - `metrics_listen` the metrics endpoint cannot listen on its address
 * - `not_wired`      containerd uses another content store; the peers are served, and `blobs/` is left alone
 */
const CAUSES = [
  'config',
  'cluster_key',
  'swarm_listen',
  'swarm_failed',
  'metrics_listen',
  'not_wired',
] as const;

export type Cause = (typeof CAUSES)[number];

/** One thing that an operator has to mend. Text of ours only, never a peer's; no secrets. */
export type Condition = {
  readonly cause: Cause;
  /** A whole sentence without its full stop: what does not work and why. */
  readonly what: string;
  /** Commands (or, where no command can do it, what to do), in the order in which they help. */
  readonly mend: readonly string[];
  /** Since when, on the monotonic clock. */
  readonly since_ms: number;
};

/** Where a room says that it cannot do its work, and that it can again. */
export interface ConditionReport {
  /** Says it once in the log; the same sentence again changes nothing. `err` goes into the log alone. */
  raise(
    cause: Cause,
    condition: { readonly what: string; readonly mend: readonly string[]; readonly err?: unknown },
  ): void;
  /** Nothing happens when the cause was not raised. */
  clear(cause: Cause): void;
}

/** What stands against this daemon now: at most one condition of each cause. Status, `/readyz`, metric and log read it here. */
export class Conditions implements ConditionReport {
  readonly #modules: { readonly clock: Clock; readonly logger: Logger };
  readonly #raised = new Map<Cause, Condition>();

  constructor(modules: {
    readonly clock: Clock;
    readonly logger: Logger;
    readonly register: MetricRegister;
  }) {
    this.#modules = modules;
    modules.register.gauge<{ cause: Cause }>({
      name: 'degraded',
      help: '1 while the cause stands against this daemon; containerd is served all the same. "layerswarm status" has the sentence and what mends it.',
      labels: ['cause'],
      // Every cause from the start, so that an alert needs no guess about absent series.
      collect: (set) => CAUSES.forEach((cause) => set({ cause }, this.#raised.has(cause) ? 1 : 0)),
    });
  }

  raise(cause: Cause, { what, mend, err }: Parameters<ConditionReport['raise']>[1]): void {
    const old = this.#raised.get(cause);
    const since_ms = old?.since_ms ?? this.#modules.clock.now_ms();
    this.#raised.set(cause, { cause, what, mend, since_ms });
    if (old?.what === what) return;
    this.#modules.logger.warn(
      { cause, what, mend, ...(err !== undefined && { err }) },
      'degraded: containerd is served, something else is not',
    );
  }

  clear(cause: Cause): void {
    const { clock, logger } = this.#modules;
    const old = this.#raised.get(cause);
    if (old === undefined) return;
    this.#raised.delete(cause);
    const seconds = Math.round((clock.now_ms() - old.since_ms) / 1000);
    logger.info({ cause, seconds }, 'no longer degraded by this cause');
  }

  has(cause: Cause): boolean {
    return this.#raised.has(cause);
  }

  /** Longest-standing first. */
  list(): readonly Condition[] {
    return [...this.#raised.values()].sort((a, b) => a.since_ms - b.since_ms);
  }
}
