import { isAbsolute } from 'node:path';
import { hasCode } from '../base/errors.ts';
import { keepLastGood, lastGoodTexts } from './last-good.ts';
import {
  checkLevel,
  isSection,
  LOG_LEVEL_VARIABLE,
  missing,
  parseConfig,
  parseTables,
  parseToml,
  problemsOf,
  readConfig,
} from './load.ts';
import { formerNames, MIGRATIONS, type Migration, moveKey } from './migrations.ts';
import { salvage } from './salvage.ts';
import type { Config, SectionName } from './schema.ts';
import { SECTIONS } from './schema.ts';

type Environment = Readonly<Record<string, string | undefined>>;

/** The configuration that a service runs with, whatever somebody has done to the file. */
export type ServiceConfig = {
  readonly config: Config;
  readonly file: string;
  /**
   * `file`: as written (or every default, where the file may be missing); `last_good`: what served last; `sections`: those
   * sections of the file that can be used.
   */
  readonly served: 'file' | 'last_good' | 'sections';
  /** What is wrong, one problem per entry; empty when nothing is. */
  readonly problems: readonly string[];
  /** With `sections`: those that are not in force; `swarm` is off then, the others have their defaults. */
  readonly lost: readonly SectionName[];
  /** Keeps this configuration for a day on which the file is broken. Call it once the daemon serves with it. Rejects as the file system does. */
  keep(): Promise<void>;
};

/**
 * Loads the configuration for a service that must run: a file that cannot be read or used costs nothing while the one that served
 * last is known, and else only the sections that are wrong. `config_invalid` as `loadConfig` throws it, when neither helps: `[store]`
 * or `[content]` cannot be used. `optional`: without the file, and without one that served before, the defaults are in force.
 * Old keys in what served last are read as what they are called today, so that an upgrade finds the host served.
 */
export function loadServiceConfig(
  file: string,
  given: Environment,
  options: { readonly optional?: boolean; readonly migrations?: readonly Migration[] } = {},
): ServiceConfig {
  const { migrations = MIGRATIONS } = options;
  const level = checkLevel(given).map(({ text }) => text);
  const environment = level.length === 0 ? given : { ...given, [LOG_LEVEL_VARIABLE]: undefined };
  const found = { file, lost: [], problems: level, keep: () => Promise.resolve() };
  let text: string | undefined;
  try {
    text = readConfig(file);
    if (text === undefined) throw missing(file);
    const config = parseConfig(text, file, environment, migrations);
    return { ...found, config, served: 'file', keep: keeper(file, text, config, environment) };
  } catch (error) {
    if (!hasCode(error, 'config_invalid')) throw error;
    const problems = [...problemsOf(error), ...level];
    const config = lastGood(file, text, environment, migrations);
    if (config !== undefined) return { ...found, config, served: 'last_good', problems };
    if (text === undefined) {
      if (error.facts['absent'] !== true || options.optional !== true) throw error;
      return { ...found, config: parseConfig('', file, environment), served: 'file' };
    }
    const salvaged = salvage(text, file, environment);
    if (salvaged === undefined) throw error;
    return { ...found, ...salvaged, served: 'sections', problems };
  }
}

function keeper(file: string, text: string, config: Config, environment: Environment) {
  const { state_directory } = config.store;
  return () => keepLastGood([state_directory, ...stateOf(environment)], file, text);
}

function lastGood(
  file: string,
  broken: string | undefined,
  environment: Environment,
  migrations: readonly Migration[],
): Config | undefined {
  const names = ['state_directory', ...formerNames(migrations, ['store', 'state_directory'])];
  const line = new RegExp(`^\\s*(?:${names.join('|')})\\s*=\\s*(["'])(/[^"'\\n]*)\\1`, 'm');
  const by_file = line.exec(broken ?? '')?.[2];
  const by_default = SECTIONS.store.schema.parse({}).state_directory;
  const directories = [...(by_file === undefined ? [] : [by_file]), ...stateOf(environment)];
  for (const text of lastGoodTexts([...directories, by_default], file)) {
    try {
      const tables = migrated(parseToml(text, file), migrations);
      return parseTables(tables, file, environment, migrations);
    } catch (error) {
      // Of a newer version that knew other keys.
      if (!hasCode(error, 'config_invalid')) throw error;
    }
  }
  return undefined;
}

/** What an older version served with, in the words of today. */
function migrated(
  tables: Record<string, unknown>,
  migrations: readonly Migration[],
): Record<string, unknown> {
  for (const migration of migrations) {
    moveKey(tables, migration);
    const [section] = migration.from;
    // A section that no longer exists goes with its last key.
    if (!isSection(section) && Object.keys(tables[section] ?? {}).length === 0)
      Reflect.deleteProperty(tables, section);
  }
  return tables;
}

/** The state directory that systemd made for the service. */
function stateOf(environment: Environment): string[] {
  const [first = ''] = (environment['STATE_DIRECTORY'] ?? '').split(':');
  return isAbsolute(first) ? [first] : [];
}
