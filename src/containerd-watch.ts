import { createHash } from 'node:crypto';
import type { Clock } from './base/clock.ts';
import type { ContainerdCalls } from './content/containerd-calls.ts';
import { ForeignFileLook } from './host/foreign-files.ts';
import { WiringWatch } from './host/wiring-watch.ts';
import type { Digest } from './oci/digest.ts';
import type { ConditionReport } from './ops/conditions.ts';
import type { Logger } from './ops/logger.ts';
import type { MetricRegister } from './ops/register.ts';
import type { LocalStore } from './store/local-store.ts';

type Modules = {
  readonly clock: Clock;
  readonly store: Pick<LocalStore, 'info' | 'setWired' | 'statuses'>;
  readonly calls: ContainerdCalls;
  readonly conditions: ConditionReport;
  readonly logger: Logger;
  readonly register: MetricRegister;
};

/** What an operator does about it. */
const MEND = ['layerswarm doctor --only wiring', 'layerswarm setup'];

/** Joins the watch over containerd with the store, whose own files it must know, and with what stands against this daemon. */
export function watchWiring(
  { clock, store, calls, conditions, logger, register }: Modules,
  { content_directory }: { readonly content_directory: string },
): WiringWatch {
  const own = {
    hasBlob: (digest: Digest) => store.info(digest) !== undefined,
    // containerd's own layout, which the store keeps: `ingest/<sha256 of the ref>`.
    ingestDirectories: () =>
      new Set(
        [...store.statuses()].map(({ ref }) => createHash('sha256').update(ref).digest('hex')),
      ),
  };
  const since_epoch_ms = Number(clock.wall_ns() / 1_000_000n);
  const files = new ForeignFileLook({ own }, { content_directory, since_epoch_ms });
  return new WiringWatch({ clock, logger, register, calls, files }, ({ state, reason }) => {
    store.setWired(state !== 'not_wired');
    if (state === 'not_wired') conditions.raise('not_wired', { what: reason, mend: MEND });
    else conditions.clear('not_wired');
  });
}
