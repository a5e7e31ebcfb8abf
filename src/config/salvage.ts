import { DaemonError } from '../base/errors.ts';
import { assembleConfig, checkTables, isSection, parseToml } from './load.ts';
import { type Config, SECTIONS, type SectionName } from './schema.ts';

/** Without these two there is nothing to serve: a guess at them would hand containerd another store. */
const VITAL: readonly SectionName[] = ['store', 'content'];
/** Keys that say where the store and its socket are. Where one of them stands in another section by mistake, its own is in doubt. */
const PLACES = ['content_directory', 'state_directory', 'work_directory', 'socket_path'];

export type Salvaged = {
  readonly config: Config;
  /** Sections that are not in force as written: the swarm is off then, the others have their defaults. */
  readonly lost: readonly SectionName[];
};

/**
 * What can be used of a configuration that cannot be used as a whole: its sections one by one, also where the text as a whole is no
 * TOML. Undefined when `[store]` or `[content]` is broken or in doubt, or when nothing of it can be recognised.
 */
export function salvage(
  text: string,
  file: string,
  environment: Readonly<Record<string, string | undefined>>,
): Salvaged | undefined {
  const { tables, broken } = tablesOf(text, file);
  // A page of another program, or half a disk block: nothing in it says that this host has the usual directories.
  if (broken.length > 0 && !Object.keys(tables).some(isSection)) return undefined;
  if (broken.some(({ name, lines }) => isVital(name) || mentionsVital(lines))) return undefined;
  if (Object.entries(tables).some(([name, table]) => isDoubtful(name, table))) return undefined;
  const { sections } = checkTables(tables, file);
  const torn = new Set(broken.map(({ name }) => name));
  const lost = (Object.keys(SECTIONS) as SectionName[]).filter(
    (name) => sections[name] === undefined || torn.has(name),
  );
  if (lost.some(isVital)) return undefined;
  const defaults = Object.fromEntries(lost.map((name) => [name, fallback(name)]));
  return { config: assembleConfig({ ...sections, ...defaults } as Config, environment), lost };
}

/** What stands in for a section that is lost. The swarm may have had limits and addresses that must not be overstepped: it stays off. */
function fallback(name: SectionName): object {
  return name === 'swarm'
    ? SECTIONS.swarm.schema.parse({ enabled: false })
    : SECTIONS[name].schema.parse({});
}

type Torn = { readonly name: string; readonly lines: string };

/** The tables of the text; where it is no TOML, those of the parts between its section headers that are. */
function tablesOf(
  text: string,
  file: string,
): { readonly tables: Record<string, unknown>; readonly broken: readonly Torn[] } {
  try {
    return { tables: parseToml(text, file), broken: [] };
  } catch (error) {
    if (!(error instanceof DaemonError)) throw error;
  }
  const tables: Record<string, unknown> = {};
  const broken: Torn[] = [];
  for (const part of partsOf(text)) {
    try {
      for (const [name, table] of Object.entries(parseToml(part.lines, file))) {
        // A section that stands twice is what is wrong, or one of them is inside of a text.
        if (Object.hasOwn(tables, name)) broken.push({ name, lines: part.lines });
        else tables[name] = table;
      }
    } catch (error) {
      if (!(error instanceof DaemonError)) throw error;
      broken.push(part);
    }
  }
  return { tables, broken };
}

/** Cut before every line that is, or was meant to be, a section header. The first part has no name. */
function partsOf(text: string): Torn[] {
  const parts: { name: string; lines: string }[] = [{ name: '', lines: '' }];
  for (const line of text.split('\n')) {
    const name = /^\s*\[+\s*"?([A-Za-z][A-Za-z0-9_-]*)"?\s*(?:\][^\n]*|\r?)$/.exec(line)?.[1];
    if (name !== undefined) parts.push({ name, lines: '' });
    const last = parts[parts.length - 1];
    if (last !== undefined) last.lines += `${line}\n`;
  }
  return parts;
}

function isVital(name: string): boolean {
  return (VITAL as readonly string[]).includes(name);
}

/** A table in which a key of the vital sections may have been lost. */
function isDoubtful(name: string, table: unknown): boolean {
  const is_table = typeof table === 'object' && table !== null;
  if (isSection(name)) {
    return !isVital(name) && is_table && PLACES.some((key) => Object.hasOwn(table, key));
  }
  // A mistyped header, or a key before the first one.
  const keys = vitalKeys();
  return is_table ? keys.some((key) => Object.hasOwn(table, key)) : keys.includes(name);
}

/** True when a key of the vital sections stands in lines that are no TOML: their header may be what is broken. */
function mentionsVital(lines: string): boolean {
  return vitalKeys().some((key) => new RegExp(`^\\s*"?${key}\\b`, 'm').test(lines));
}

function vitalKeys(): string[] {
  return VITAL.flatMap((vital) => Object.keys(SECTIONS[vital].schema.shape));
}
