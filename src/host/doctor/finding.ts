/** What can be checked: the closed list, in the order it is shown. */
export const CHECK_IDS = [
  'socket',
  'service',
  'degraded',
  'config',
  'wiring',
  'images',
  'blobs',
  'registries',
  'swarm-port',
  'cluster-key',
  'disk',
  'decompressors',
  'socket-buffers',
  'peers',
] as const;

export type CheckId = (typeof CHECK_IDS)[number];

/**
 * How well it stands: `ok`; `note` = works, and somebody may want to know; `warn` = works less well than it should;
 * `fail` = something that is meant to work does not.
 */
export type Level = 'ok' | 'note' | 'warn' | 'fail';

/** A value of a finding's facts, as JSON has it. */
type Fact =
  | string
  | number
  | boolean
  | null
  | readonly Fact[]
  | { readonly [name: string]: Fact | undefined };

/** What a check saw, by name. Never a secret. */
export type Facts = Readonly<Record<string, Fact | undefined>>;

/** One thing that is not as it should be: a whole sentence, and the commands that mend it, in order. */
export type Remark = {
  readonly level: Exclude<Level, 'ok'>;
  readonly text: string;
  readonly mend: readonly string[];
};

/** What a check found. `summary` is one sentence; `details` are the further remarks, worst first. */
export type Finding = {
  readonly id: CheckId;
  readonly level: Level;
  readonly summary: string;
  readonly details: readonly string[];
  readonly facts: Facts;
  /** Commands (or, where no command can do it, what to do), in the order in which they help. */
  readonly mend: readonly string[];
};

const RANK: Readonly<Record<Level, number>> = { ok: 0, note: 1, warn: 2, fail: 3 };

export function remark(level: Remark['level'], text: string, ...mend: string[]): Remark {
  return { level, text, mend };
}

/** The worse of two levels. */
export function worse(a: Level, b: Level): Level {
  return RANK[a] >= RANK[b] ? a : b;
}

/**
 * One finding from everything a check has to say: the worst remark gives level and summary, without any it is `ok`
 * with the sentence `fine`. The same command stands once.
 */
export function findingOf(
  id: CheckId,
  fine: string,
  remarks: readonly Remark[],
  facts: Facts,
): Finding {
  const ranked = [...remarks].sort((a, b) => RANK[b.level] - RANK[a.level]);
  const worst = ranked[0];
  if (worst === undefined) return { id, level: 'ok', summary: fine, details: [], facts, mend: [] };
  return {
    id,
    level: worst.level,
    summary: worst.text,
    details: ranked.slice(1).map((r) => r.text),
    facts,
    mend: [...new Set(ranked.flatMap((r) => r.mend))],
  };
}
