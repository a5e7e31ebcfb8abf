import { existsSync } from 'node:fs';
import { styleText } from 'node:util';
import type { Clock } from '../base/clock.ts';
import { hasCode } from '../base/errors.ts';
import { loadConfig, parseConfig, problemsOf } from '../config/load.ts';
import { loadServiceConfig } from '../config/service-config.ts';
import type { ConfigView, DoctorModules } from '../host/doctor/context.ts';
import { parseOnly, runDoctor } from '../host/doctor/doctor.ts';
import { CHECK_IDS, type Finding, type Level, worse } from '../host/doctor/finding.ts';
import type { Output } from './output.ts';

/** What the checks need of this host; main.ts gives the real one. */
export type DoctorWorld = Pick<
  DoctorModules,
  'run' | 'fetchStatus' | 'openBlobDoor' | 'openDaemon' | 'loadClusterKey'
>;

export type DoctorOptions = {
  readonly json?: boolean;
  readonly config: string;
  readonly containerdConfig?: string;
  readonly only?: string;
  readonly readAll?: boolean;
};

type Modules = {
  readonly output: Output;
  readonly clock: Clock;
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly world: DoctorWorld;
  /** Where the packages put the configuration: only there it may be missing. */
  readonly packaged_config: string;
};

/** Exit codes of `layerswarm doctor`, by the worst finding. */
const DOCTOR_EXIT: Readonly<Record<Level, number>> = { ok: 0, note: 0, warn: 1, fail: 2 };

const STYLE = { ok: 'green', note: 'cyan', warn: 'yellow', fail: 'red' } as const;
const MARK: Readonly<Record<Level, string>> = {
  ok: 'ok',
  note: 'note',
  warn: 'warn',
  fail: 'FAIL',
};
const MARK_WIDTH = 6;
const ID_WIDTH = Math.max(...CHECK_IDS.map((id) => id.length)) + 2;

/** How many findings there are of each level. */
export type DoctorSummary = {
  readonly checks: number;
  readonly ok: number;
  readonly notes: number;
  readonly warnings: number;
  readonly failures: number;
};

/** Runs the checks, prints what they found and resolves to the exit code. */
export async function runDoctorCommand(
  modules: Modules,
  options: DoctorOptions,
  signal: AbortSignal,
): Promise<number> {
  const { output, clock, world } = modules;
  const ids = parseOnly(options.only);
  const config = configView(modules, options.config);
  const containerd_config = options.containerdConfig;
  const read_all = options.readAll === true;
  const looked = { ...world, clock, config, containerd_config, read_all };
  const findings = await runDoctor(looked, ids, signal);
  output.out(
    options.json === true
      ? `${JSON.stringify({ checks: findings, summary: summaryOf(findings) }, null, 2)}\n`
      : `${renderFindings(findings, { color: output.terminal })}\n`,
  );
  return DOCTOR_EXIT[findings.map((f) => f.level).reduce(worse, 'ok')];
}

/** The configuration, or the defaults and what is wrong with it. */
function configView({ environment, packaged_config }: Modules, file: string): ConfigView {
  if (file === packaged_config && !existsSync(file)) {
    return { file, config: parseConfig('', file, environment), state: 'absent', problems: [] };
  }
  try {
    return { file, config: loadConfig(file, environment), state: 'loaded', problems: [] };
  } catch (error) {
    if (!hasCode(error, 'config_invalid')) throw error;
    return { file, ...inForce(file, environment), state: 'unusable', problems: problemsOf(error) };
  }
}

/** What the daemon runs with in place of a file that cannot be used; where it would not run, the defaults. */
function inForce(
  file: string,
  environment: Modules['environment'],
): Pick<ConfigView, 'config' | 'instead'> {
  try {
    const { config, served } = loadServiceConfig(file, environment);
    return { config, ...(served !== 'file' && { instead: served }) };
  } catch (error) {
    if (!hasCode(error, 'config_invalid')) throw error;
    return { config: parseConfig('', file, {}) };
  }
}

export function summaryOf(findings: readonly Finding[]): DoctorSummary {
  const count = (level: Level): number => findings.filter((f) => f.level === level).length;
  return {
    checks: findings.length,
    ok: count('ok'),
    notes: count('note'),
    warnings: count('warn'),
    failures: count('fail'),
  };
}

/** One line per check; under what is not ok the details and the commands that mend it; a last line that counts. */
export function renderFindings(
  findings: readonly Finding[],
  options: { readonly color: boolean },
): string {
  const indent = ' '.repeat(MARK_WIDTH + ID_WIDTH);
  const lines = findings.flatMap((finding) => {
    const mark = MARK[finding.level].padEnd(MARK_WIDTH);
    const painted = options.color
      ? styleText(STYLE[finding.level], mark, { validateStream: false })
      : mark;
    return [
      `${painted}${finding.id.padEnd(ID_WIDTH)}${oneLine(finding.summary)}`,
      ...finding.details.map((detail) => `${indent}${oneLine(detail)}`),
      ...finding.mend.map((command) => `${indent}mend: ${oneLine(command)}`),
    ];
  });
  const { checks, ok, notes, warnings, failures } = summaryOf(findings);
  const noted = notes === 0 ? '' : ` (${notes} with notes)`;
  lines.push(
    `${plural(checks, 'check')}: ${ok + notes} ok${noted}, ${plural(warnings, 'warning')}, ${plural(failures, 'failure')}`,
  );
  return lines.join('\n');
}

function plural(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? '' : 's'}`;
}

/** Names of images and messages of other programs may hold anything; a terminal is shown none of it. */
function oneLine(text: string): string {
  return text.replace(/[\p{C}\p{Zl}\p{Zp}]/gu, ' ').trimEnd();
}
