import { isDeepStrictEqual } from 'node:util';
import { parse, TomlError } from 'smol-toml';
import { DaemonError } from '../base/errors.ts';
import { parseConfig } from '../config/load.ts';
import { describeMigration, type KeyPlace, type Migration, moveKey } from '../config/migrations.ts';
import { SECTIONS } from '../config/schema.ts';
import { findEntry, insertIntoTable } from './toml-edit.ts';
import { lineStart, nextLine, outlineToml, type TomlEntry } from './toml-scan.ts';

export type MigratedConfig = {
  /** The same text when there was nothing to do. */
  readonly text: string;
  /** One sentence for each change. */
  readonly changes: readonly string[];
};

type Tables = Record<string, Record<string, unknown>>;

/**
 * layerswarm's configuration with every old key brought to its new name and place. All else stays byte for byte, comments and order
 * included. The result has passed the schema. `config_invalid` when the text is no TOML, when an old and a new key are both set, when an
 * old key is written in a form that is not rewritten (an inline table, a dotted key), or when the result is not a good configuration.
 */
export function migrateConfig(
  text: string,
  file: string,
  migrations: readonly Migration[],
): MigratedConfig {
  let migrated = text;
  const changes: string[] = [];
  const wanted = tablesOf(text, file);
  for (const migration of migrations) {
    const [section] = migration.from;
    const moved = moveKey(wanted, migration);
    if (moved === 'absent') continue;
    if (moved === 'both_set') throw bothSet(migration, file);
    migrated = applyOne(migrated, file, migration);
    if (!Object.hasOwn(SECTIONS, section)) migrated = withoutEmptySection(migrated, section);
    changes.push(describeMigration(migration));
  }
  // The text is edited, not written anew, so that what it says is compared with what it should say.
  if (!isDeepStrictEqual(filled(tablesOf(migrated, file)), filled(wanted))) {
    throw new DaemonError(
      'internal',
      `the migration of ${file} came out wrong; it was not written`,
    );
  }
  parseConfig(migrated, file, {}, migrations);
  return { text: migrated, changes };
}

function applyOne(text: string, file: string, migration: Migration): string {
  const entry = entryOf(text, file, migration.from);
  if (migration.kind === 'removed') return withoutEntry(text, entry);
  const [section, key] = migration.to;
  if (section === migration.from[0]) {
    const end = entry.start + text.slice(entry.start, entry.value_start).search(/[\s=]/);
    return text.slice(0, entry.start) + key + text.slice(end);
  }
  const value = text.slice(entry.value_start, entry.value_end);
  return insertIntoTable(withoutEntry(text, entry), [section], key, value);
}

function entryOf(text: string, file: string, [section, key]: KeyPlace): TomlEntry {
  const entry = findEntry(text, [section], key);
  if (entry?.table.length === 1 && entry.key.length === 1) return entry;
  throw new DaemonError(
    'config_invalid',
    `${file}: [${section}] ${key} stands in an inline table or has a dotted key; write it as "${key} = ..." below [${section}] first`,
    { file },
  );
}

function withoutEntry(text: string, entry: TomlEntry): string {
  return text.slice(0, lineStart(text, entry.start)) + text.slice(nextLine(text, entry.value_end));
}

/** Without the header of a section that no longer exists, once nothing is left in it. */
function withoutEmptySection(text: string, section: string): string {
  const { headers, entries } = outlineToml(text);
  const header = headers.find(({ path }) => path.length === 1 && path[0] === section);
  if (header === undefined || entries.some(({ table }) => table[0] === section)) return text;
  return text.slice(0, lineStart(text, header.start)) + text.slice(nextLine(text, header.start));
}

function bothSet(migration: Migration, file: string): DaemonError {
  const message = `${file}: ${describeMigration(migration)}, and both are set; delete the old one`;
  return new DaemonError('config_invalid', message, { file });
}

/** Sections by name; anything else is left to the schema. */
function tablesOf(text: string, file: string): Tables {
  try {
    return structuredClone(parse(text)) as Tables;
  } catch (cause) {
    if (!(cause instanceof TomlError)) throw cause;
    const what = cause.message.split('\n')[0] ?? '';
    const message = `${file}:${cause.line}:${cause.column}: ${what}`;
    throw new DaemonError('config_invalid', message, { file }, { cause });
  }
}

/** Empty sections say nothing. */
function filled(tables: Tables): Tables {
  return Object.fromEntries(
    Object.entries(tables).filter(
      ([, table]) => typeof table !== 'object' || Object.keys(table).length > 0,
    ),
  );
}
