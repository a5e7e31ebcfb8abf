/** Where a key stands: its section and its name. */
export type KeyPlace = readonly [section: string, key: string];

/**
 * One change of the configuration between two versions that an old file has to follow. `since` is the first version that
 * no longer knows the old key. A changed default is none: it is told in the changelog.
 */
export type Migration =
  | {
      readonly kind: 'renamed';
      readonly from: KeyPlace;
      readonly to: KeyPlace;
      readonly since: string;
    }
  | {
      readonly kind: 'removed';
      readonly from: KeyPlace;
      /** Whole sentence without its full stop: what became of what it did. */
      readonly why: string;
      readonly since: string;
    };

/**
 * Every key that was ever renamed or removed, oldest first. The daemon never reads an old key silently: it refuses the file and
 * names the command that rewrites it. None so far.
 */
export const MIGRATIONS: readonly Migration[] = [];

/** The migration that an old key needs, if it is one. */
export function migrationOf(
  migrations: readonly Migration[],
  [section, key]: KeyPlace,
): Migration | undefined {
  return migrations.find(({ from }) => from[0] === section && from[1] === key);
}

/** Names under which a key was written before, newest last. */
export function formerNames(
  migrations: readonly Migration[],
  [section, key]: KeyPlace,
): readonly string[] {
  const earlier = migrations.flatMap((m) =>
    m.kind === 'renamed' && m.to[0] === section && m.to[1] === key ? [m.from] : [],
  );
  return earlier.flatMap((place) => [...formerNames(migrations, place), place[1]]);
}

/**
 * Brings one old key of a parsed file to where it belongs today, in place; says whether there was one. `both_set`: the new key is
 * there too, and nothing was changed, since nobody can tell which one was meant.
 */
export function moveKey(
  tables: Record<string, unknown>,
  migration: Migration,
): 'absent' | 'moved' | 'both_set' {
  const [section, key] = migration.from;
  const from = tables[section];
  if (!isTable(from) || !Object.hasOwn(from, key)) return 'absent';
  if (migration.kind === 'renamed') {
    const [to_section, to_key] = migration.to;
    const to = (tables[to_section] ??= {});
    if (!isTable(to) || Object.hasOwn(to, to_key)) return 'both_set';
    to[to_key] = from[key];
  }
  Reflect.deleteProperty(from, key);
  return 'moved';
}

function isTable(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** What happened to the key, for people: `[pull] linger was renamed to [pull] linger_ms in version 0.2.0`. */
export function describeMigration(migration: Migration): string {
  const { from, since } = migration;
  return migration.kind === 'renamed'
    ? `${show(from)} was renamed to ${show(migration.to)} in version ${since}`
    : `${show(from)} was removed in version ${since}: ${migration.why}`;
}

function show([section, key]: KeyPlace): string {
  return `[${section}] ${key}`;
}
