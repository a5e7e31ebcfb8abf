import type { Check, ConfigView } from './context.ts';
import { type Finding, findingOf, remark } from './finding.ts';

/** A running daemon reads the file at its start only. */
const RESTART = 'systemctl restart layerswarm.service';

export type ConfigFacts = Pick<ConfigView, 'file' | 'state' | 'problems' | 'instead'>;

/** Can the configuration be used? Every problem is named. */
export const configCheck: Check<ConfigFacts> = {
  deadline_ms: 1_000,
  gather: async ({ config: { file, state, problems, instead } }) =>
    Promise.resolve({ file, state, problems, ...(instead !== undefined && { instead }) }),
  judge: judgeConfig,
};

export function judgeConfig({ file, state, problems, instead }: ConfigFacts): Finding {
  const facts = { file, state, problems, instead };
  if (state === 'absent') {
    const text = `there is no ${file}: every key has its default`;
    return findingOf('config', '', [remark('note', text)], facts);
  }
  if (state === 'loaded') return findingOf('config', `${file} is right`, [], facts);
  const remarks = problems.map((problem) =>
    remark('fail', problem, `edit ${file}`, `layerswarm config check ${file}`, RESTART),
  );
  const used = {
    last_good: 'the last configuration that served',
    sections: 'the sections of it that are right',
    defaults: 'the defaults',
  };
  const rest = `the other checks used ${used[instead ?? 'defaults']} in place of ${file}`;
  return findingOf('config', '', [...remarks, remark('note', rest)], facts);
}
