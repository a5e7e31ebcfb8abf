import { readFileSync, statSync } from 'node:fs';
import { BlockList, isIP } from 'node:net';
import { join } from 'node:path';
import { parse, TomlError } from 'smol-toml';
import type { z } from 'zod';
import { DaemonError, errnoOf } from '../base/errors.ts';
import { type KeyDoc, splitHostPort } from './keys.ts';
import { describeMigration, MIGRATIONS, type Migration, migrationOf } from './migrations.ts';
import { tomlValue } from './reference.ts';
import { type Config, SECTIONS, type SectionName } from './schema.ts';

/** The environment variable that overrides `[log] level`. */
export const LOG_LEVEL_VARIABLE = 'LAYERSWARM_LOG_LEVEL';

type Environment = Readonly<Record<string, string | undefined>>;

/** Configuration files are small; a larger one is a mistake (a wrong path, a device). */
const FILE_MAX_BYTES = 1024 * 1024;

/**
 * Reads, checks and freezes the configuration. `config_invalid` names the file and every problem at once: key, value
 * and what was expected. A file that does not exist is an error too, unless `optional`.
 */
export function loadConfig(
  file: string,
  environment: Environment,
  options: { readonly optional?: boolean } = {},
): Config {
  const text = readConfig(file);
  if (text === undefined && options.optional !== true) throw missing(file);
  return parseConfig(text ?? '', file, environment);
}

/** The file's text; undefined when it does not exist. `config_invalid` when it cannot be read. */
export function readConfig(file: string): string | undefined {
  try {
    if (statSync(file).size > FILE_MAX_BYTES) throw tooLarge(file);
    return readFileSync(file, 'utf8');
  } catch (cause) {
    if (errnoOf(cause) === 'ENOENT') return undefined;
    if (cause instanceof DaemonError) throw cause;
    const why = errnoOf(cause) ?? 'unreadable';
    throw new DaemonError('config_invalid', `cannot read ${file}: ${why}`, { file }, { cause });
  }
}

/** The error for a file that has to be there. */
export function missing(file: string): DaemonError {
  return new DaemonError('config_invalid', `cannot read ${file}: ENOENT`, { file, absent: true });
}

function tooLarge(file: string): DaemonError {
  return invalid(file, [`the file is larger than ${FILE_MAX_BYTES} bytes`]);
}

/**
 * The same for text that is here already; `file` is its name in errors. An old key of `migrations` is an error like any unknown one, which
 * names what became of it and the command that rewrites the file.
 */
export function parseConfig(
  text: string,
  file: string,
  environment: Environment,
  migrations: readonly Migration[] = MIGRATIONS,
): Config {
  return parseTables(parseToml(text, file), file, environment, migrations);
}

/** The same for a text that is parsed already. */
export function parseTables(
  raw: Readonly<Record<string, unknown>>,
  file: string,
  environment: Environment,
  migrations: readonly Migration[],
): Config {
  const { sections, problems } = checkTables(raw, file, migrations);
  problems.push(...checkLevel(environment));
  if (problems.length > 0)
    throw invalid(
      file,
      problems.map((p) => p.text),
    );
  return assembleConfig(sections as Config, environment);
}

/** One thing that is wrong, and the section it is wrong in; none for what stands outside of every known section. */
type Problem = { readonly section?: SectionName; readonly text: string };

/** Checks every table of a configuration on its own: the sections that are right, and everything that is not. */
export function checkTables(
  raw: Readonly<Record<string, unknown>>,
  file: string,
  migrations: readonly Migration[] = MIGRATIONS,
): { readonly sections: Partial<Record<SectionName, unknown>>; readonly problems: Problem[] } {
  const problems: Problem[] = [];
  const sections: Partial<Record<SectionName, unknown>> = {};
  for (const name of Object.keys(raw)) {
    if (isSection(name)) continue;
    const found = unknownName(name, raw[name], file, migrations);
    problems.push(...found.map((text) => ({ text })));
  }
  for (const name of Object.keys(SECTIONS) as SectionName[]) {
    const given = raw[name] ?? {};
    const result = SECTIONS[name].schema.safeParse(given);
    const wrong = result.success
      ? crossCheck(name, result.data)
      : explain(name, given, result.error.issues, { file, migrations });
    if (wrong.length === 0) sections[name] = result.data;
    problems.push(...wrong.map((text) => ({ section: name, text })));
  }
  return { sections, problems };
}

/** Sections that were all checked, with what depends on others and on the environment; frozen. */
export function assembleConfig(sections: Config, environment: Environment): Config {
  return freeze(derive(sections, environment[LOG_LEVEL_VARIABLE]));
}

/** What is wrong with the environment. */
export function checkLevel(environment: Environment): Problem[] {
  const level = environment[LOG_LEVEL_VARIABLE];
  if (level === undefined || level === '') return [];
  const schema = SECTIONS.log.schema.shape.level;
  if (schema.safeParse(level).success) return [];
  const { expected } = schema.meta() as unknown as KeyDoc;
  return [{ text: `${LOG_LEVEL_VARIABLE} = ${tomlValue(level)}: expected ${expected}` }];
}

/** The single problems that a `config_invalid` of this room names, each without the file's name where there are several. */
export function problemsOf(error: DaemonError): string[] {
  const [first = '', ...rest] = error.message.split('\n').map((line) => line.trim());
  return rest.length === 0 ? [first] : rest;
}

/** The tables of the text. `config_invalid` with line and column. */
export function parseToml(text: string, file: string): Record<string, unknown> {
  if (text.length > FILE_MAX_BYTES) throw tooLarge(file);
  try {
    return parse(text);
  } catch (cause) {
    if (!(cause instanceof TomlError)) throw cause;
    const what = cause.message.split('\n')[0] ?? '';
    throw new DaemonError(
      'config_invalid',
      `${file}:${cause.line}:${cause.column}: ${what}`,
      { file },
      { cause },
    );
  }
}

/** Values that depend on others, and what the environment overrides. */
function derive(config: Config, level: string | undefined): Config {
  const { store } = config;
  return {
    ...config,
    store: {
      ...store,
      work_directory:
        store.work_directory === ''
          ? join(store.content_directory, '.layerswarm')
          : store.work_directory,
    },
    log: level === undefined || level === '' ? config.log : SECTIONS.log.schema.parse({ level }),
  };
}

/** What a section's keys say together. */
function crossCheck(section: SectionName, values: object): string[] {
  if (section !== 'metrics') return [];
  const { listen, allow_remote } = values as Config['metrics'];
  const host = splitHostPort(listen)?.host;
  if (host === undefined || allow_remote || isLoopback(host)) return [];
  return [
    `[metrics] listen = ${tomlValue(listen)}: expected a loopback address, because allow_remote is false`,
  ];
}

function isLoopback(host: string): boolean {
  if (host === 'localhost') return true;
  const loopback = new BlockList();
  loopback.addSubnet('127.0.0.0', 8, 'ipv4');
  loopback.addAddress('::1', 'ipv6');
  const version = isIP(host);
  return version !== 0 && loopback.check(host, version === 6 ? 'ipv6' : 'ipv4');
}

function explain(
  section: SectionName,
  given: unknown,
  issues: readonly z.core.$ZodIssue[],
  { file, migrations }: { readonly file: string; readonly migrations: readonly Migration[] },
): string[] {
  const { shape } = SECTIONS[section].schema;
  const problems = issues.flatMap((issue) => {
    if (issue.code === 'unrecognized_keys' && issue.path.length === 0) {
      return issue.keys.map((key) => {
        const migration = migrationOf(migrations, [section, key]);
        return migration === undefined ? unknownKey(section, key) : outdated(migration, file);
      });
    }
    const key = issue.path[0];
    if (typeof key !== 'string') {
      return [`${section} = ${tomlValue(given)}: expected a section [${section}]`];
    }
    const meta = shape[key as keyof typeof shape] as unknown as z.ZodType;
    const { expected } = meta.meta() as unknown as KeyDoc;
    const value = (given as Readonly<Record<string, unknown>>)[key];
    return [`[${section}] ${key} = ${tomlValue(value)}: expected ${expected}`];
  });
  // A list with two bad elements, or a number that is no integer and too small, is one problem.
  return [...new Set(problems)];
}

/** A section or a key outside of any that the schema does not know; of an outdated section, each key with what became of it. */
function unknownName(
  name: string,
  value: unknown,
  file: string,
  migrations: readonly Migration[],
): string[] {
  const keys = typeof value === 'object' && value !== null ? Object.keys(value) : [];
  const found = keys.flatMap((key) => migrationOf(migrations, [name, key]) ?? []);
  return found.length > 0
    ? found.map((migration) => outdated(migration, file))
    : [unknownSection(name, value)];
}

function outdated(migration: Migration, file: string): string {
  return `${describeMigration(migration)}; run: layerswarm config migrate ${file}`;
}

function unknownSection(name: string, value: unknown): string {
  const table = typeof value === 'object' && value !== null && !Array.isArray(value);
  const home = sectionsWith(name)[0];
  if (!table) {
    const hint = home === undefined ? '' : `: it belongs under [${home}]`;
    return `${name} stands outside of any section${hint}`;
  }
  return `unknown section [${name}]${suggestion(name, Object.keys(SECTIONS), (s) => `[${s}]`)}`;
}

function unknownKey(section: SectionName, key: string): string {
  const keys = Object.keys(SECTIONS[section].schema.shape);
  const home = sectionsWith(key)[0];
  const hint =
    home === undefined ? suggestion(key, keys, (k) => k) : `: it belongs under [${home}]`;
  return `unknown key [${section}] ${key}${hint}`;
}

function sectionsWith(key: string): SectionName[] {
  return (Object.keys(SECTIONS) as SectionName[]).filter((s) =>
    Object.hasOwn(SECTIONS[s].schema.shape, key),
  );
}

export function isSection(name: string): name is SectionName {
  return Object.hasOwn(SECTIONS, name);
}

function suggestion(
  word: string,
  candidates: readonly string[],
  show: (candidate: string) => string,
): string {
  const ranked = candidates
    .map((candidate) => ({ candidate, distance: editDistance(word, candidate) }))
    .sort((a, b) => a.distance - b.distance);
  const best = ranked[0];
  // A third of the letters wrong is still a typo; more is another word. A stem ("cache_max") counts as one, too.
  const stem = candidates.find((c) => word.length >= 4 && c.startsWith(word));
  const typos_max = word.length < 4 ? 1 : Math.max(2, Math.floor(word.length / 3));
  if (best !== undefined && best.distance <= typos_max) {
    return `: did you mean ${show(best.candidate)}?`;
  }
  return stem === undefined ? '' : `: did you mean ${show(stem)}?`;
}

/** Levenshtein distance. Words are keys of a file of bounded size; the longer ones are never typos. */
function editDistance(a: string, b: string): number {
  if (Math.abs(a.length - b.length) > 8) return a.length + b.length;
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const swap = row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(swap, row[j]! + 1, next[j - 1]! + 1));
    }
    row = next;
  }
  return row[b.length]!;
}

/** One error for everything that is wrong with the file. */
function invalid(file: string, problems: readonly string[]): DaemonError {
  const message =
    problems.length === 1
      ? `${file}: ${problems[0] ?? ''}`
      : `${file} has ${problems.length} problems:\n${problems.map((p) => `  ${p}`).join('\n')}`;
  return new DaemonError('config_invalid', message, { file, problems: problems.length });
}

function freeze<T extends object>(value: T): T {
  for (const inner of Object.values(value)) {
    if (typeof inner === 'object' && inner !== null) freeze(inner as object);
  }
  return Object.freeze(value);
}
