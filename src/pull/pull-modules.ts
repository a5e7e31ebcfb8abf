import type { Clock } from '../base/clock.ts';
import type { Logger } from '../ops/logger.ts';
import type { SourceFinder } from '../piece/source.ts';
import type { StagingArea } from '../store/blob-store.ts';
import type { FetchGate } from './fetch-gate.ts';
import type { PullMetrics } from './metrics.ts';
import type { StallWatch } from './stall-watch.ts';
import type { Verifier } from './verifier.ts';

/** What all sessions share. */
export type PullModules = {
  readonly store: StagingArea;
  readonly finder: SourceFinder;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly metrics: PullMetrics;
  readonly gate: FetchGate;
  readonly watch: StallWatch;
  readonly verifier: Verifier;
  /** In [0, 1); seeded by tests. */
  readonly random: () => number;
};
