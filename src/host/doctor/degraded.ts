import type { Check, DaemonView } from './context.ts';
import { type Finding, findingOf, remark } from './finding.ts';

export type DegradedFacts = {
  /** What the daemon says stands against it; undefined when it does not answer. */
  readonly conditions: DaemonView['conditions'] | undefined;
};

/** What does the daemon itself complain of? It serves containerd all the same, so nobody else tells. */
export const degradedCheck: Check<DegradedFacts> = {
  deadline_ms: 3_000,
  gather: async (context) => {
    const daemon = await context.daemon();
    return { conditions: daemon.kind === 'answers' ? daemon.view.conditions : undefined };
  },
  judge: judgeDegraded,
};

export function judgeDegraded({ conditions }: DegradedFacts): Finding {
  if (conditions === undefined) {
    const text = 'no daemon answers, so nobody can tell what it misses';
    return findingOf('degraded', '', [remark('note', text)], {});
  }
  const remarks = conditions.map(({ cause, what, mend }) =>
    remark('fail', `${cause}: ${what}`, ...mend),
  );
  const told = conditions.map(({ cause, what, sinceSeconds }) => ({ cause, what, sinceSeconds }));
  return findingOf('degraded', 'the daemon misses nothing', remarks, { conditions: told });
}
