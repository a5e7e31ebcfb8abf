import type { MetricRegister } from '../ops/register.ts';
import type { PullWaits } from './pull-waits.ts';

/** How a writer's wait for peers ended. */
export type PrefillOutcome =
  /** The whole blob came from peers. */
  | 'complete'
  /** A prefix came from peers, containerd fetches the rest. */
  | 'prefix'
  /** The blob lay in the store already. */
  | 'local'
  /** Nothing was to be had. */
  | 'miss'
  /** Bytes came, but the store could not take them. */
  | 'failed'
  /** No byte came for too long. */
  | 'stalled'
  /** The client went away. */
  | 'cancelled';

export type ContentMetrics = ReturnType<typeof createContentMetrics>;

/** What containerd did through the content door. Calls and their durations are counted by the rpc room. */
export function createContentMetrics(register: MetricRegister, waits: PullWaits) {
  register.gauge({
    name: 'content_waiting_refs',
    help: 'Refs of containerd that wait for peers now.',
    collect: (set) => set({}, waits.waiting),
  });
  return {
    read_bytes: register.counter<{ way: 'window' | 'disk' }>({
      name: 'content_read_bytes_total',
      help: 'Bytes that containerd read, from the read-ahead window or from disk.',
      labels: ['way'],
    }),
    written_bytes: register.counter({
      name: 'content_written_bytes_total',
      help: 'Bytes that containerd wrote, nearly all of them from a registry.',
    }),
    prefilled_bytes: register.counter({
      name: 'content_prefilled_bytes_total',
      help: 'Bytes that containerd found waiting in its ingests and did not have to fetch.',
    }),
    prefills: register.counter<{ outcome: PrefillOutcome }>({
      name: 'content_prefills_total',
      help: 'Pulls of a blob by containerd, by what became of the wait for peers.',
      labels: ['outcome'],
    }),
    wait_seconds: register.histogram({
      name: 'content_wait_seconds',
      help: 'How long containerd waited for peers to deliver a blob.',
      // From a manifest on the next host to a layer of some GiB on a slow line.
      buckets: [0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300],
    }),
    commits: register.counter<{ result: 'committed' | 'exists' | 'refused' }>({
      name: 'content_commits_total',
      help: 'Ends of ingests by commit: committed, existed already, or refused for size, digest or disk.',
      labels: ['result'],
    }),
  };
}
