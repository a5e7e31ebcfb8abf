import type { Check, ConfigView } from './context.ts';
import { type Finding, findingOf, remark } from './finding.ts';

export type ConfigFacts = Pick<ConfigView, 'file' | 'state' | 'problems'>;

/** Can the configuration be used? Every problem is named. */
export const configCheck: Check<ConfigFacts> = {
  deadline_ms: 1_000,
  gather: async ({ config: { file, state, problems } }) =>
    Promise.resolve({ file, state, problems }),
  judge: judgeConfig,
};

export function judgeConfig({ file, state, problems }: ConfigFacts): Finding {
  const facts = { file, state, problems };
  if (state === 'absent') {
    const text = `there is no ${file}: every key has its default`;
    return findingOf('config', '', [remark('note', text)], facts);
  }
  if (state === 'loaded') return findingOf('config', `${file} is right`, [], facts);
  const remarks = problems.map((problem) =>
    remark('fail', problem, `edit ${file}`, `layerswarm config check ${file}`),
  );
  const rest = `the other checks used the defaults in place of ${file}`;
  return findingOf('config', '', [...remarks, remark('note', rest)], facts);
}
