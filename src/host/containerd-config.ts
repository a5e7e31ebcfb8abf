import { posix } from 'node:path';
import { parse, TomlError } from 'smol-toml';
import { DaemonError } from '../base/errors.ts';
import {
  appendString,
  findEntry,
  insertTopLevel,
  removeLine,
  removeStrings,
  replaceValue,
  stringsOf,
} from './toml-edit.ts';
import { outlineToml } from './toml-scan.ts';

/** containerd's built-in content plugin; two content plugins stop 2.x from starting and make 1.x pick one at random. */
export const BUILTIN_CONTENT = 'io.containerd.content.v1.content';
/** Name of our proxy plugin in `proxy_plugins`. */
export const PROXY_NAME = 'layerswarm';
/** Directory of the drop-ins of containerd's configuration, as 2.2 and later have it by default. */
export const CONF_D = '/etc/containerd/conf.d';
/** Our drop-in. */
export const DROP_IN = `${CONF_D}/50-layerswarm.toml`;
/** What `imports` must hold for the drop-in to count. */
export const IMPORTS_GLOB = `${CONF_D}/*.toml`;

/** Ends a line that setup added, so that teardown knows it again in a file that was edited since. */
export const MARK = ' # added by layerswarm setup';
/** Configuration files are small; a larger one is a mistake. */
const TEXT_MAX_CHARS = 1024 * 1024;

/** The names a version 1 configuration may use in `disabled_plugins`, in the words of version 2. */
const VERSION_1_NAMES: Readonly<Record<string, string>> = {
  cri: 'io.containerd.grpc.v1.cri',
  ...Object.fromEntries(
    ['aufs', 'blockfile', 'btrfs', 'devmapper', 'native', 'overlayfs', 'zfs'].map((name) => [
      name,
      `io.containerd.snapshotter.v1.${name}`,
    ]),
  ),
};

/** A parsed configuration of containerd, or what `config dump` says. Nothing in it is known to have any type. */
export type ContainerdTable = Readonly<Record<string, unknown>>;

/** The drop-in: no `version` line (1.7 and 2.x mishandle other ones) and no `[plugins]` (1.x replaces whole tables). */
export function dropInText(socket_path: string): string {
  return `# Written by "layerswarm setup", removed by "layerswarm teardown".
# layerswarm is containerd's content store; the images stay where they are. No version line and no [plugins] here:
# containerd merges those differently from version to version.
disabled_plugins = ["${BUILTIN_CONTENT}"]

[proxy_plugins.${PROXY_NAME}]
  type = "content"
  address = ${JSON.stringify(socket_path)}
`;
}

/** Parses a configuration. `config_invalid` with file and line when it is not TOML. */
export function parseContainerd(text: string, file: string): ContainerdTable {
  if (text.length > TEXT_MAX_CHARS) {
    throw new DaemonError('config_invalid', `${file} is larger than ${TEXT_MAX_CHARS} bytes`, {
      file,
    });
  }
  try {
    return parse(text, { integersAsBigInt: 'asNeeded' });
  } catch (cause) {
    if (!(cause instanceof TomlError)) throw cause;
    const what = cause.message.split('\n')[0] ?? '';
    throw new DaemonError(
      'config_invalid',
      `${file}:${cause.line}:${cause.column}: ${what}; containerd cannot read this file either, mend it first`,
      { file, line: cause.line },
      { cause },
    );
  }
}

/** What became of containerd's main file: its text, and sentences about what was done beyond `imports`. */
export type MainEdit = { readonly text: string; readonly notes: readonly string[] };

/**
 * The main configuration with our drop-in directory among its `imports`, and a version 1 file of containerd 1.x turned
 * into version 2, because version 1 disables plugins by another name: there the built-in content store cannot be
 * disabled alone. `undefined` is a file that does not exist. Throws `config_invalid` for what is no TOML and
 * `failed_precondition` for a version 1 file that holds more than can be translated safely.
 */
export function wireMain(
  text: string | undefined,
  { file, major }: { readonly file: string; readonly major: number },
): MainEdit {
  if (text === undefined || text.trim() === '') {
    return { text: `${text ?? ''}version = ${major === 1 ? 2 : 3}\n${importsLine()}\n`, notes: [] };
  }
  const table = parseContainerd(text, file);
  const renewed = major === 1 ? renewVersion1(text, table, file) : { text, notes: [] };
  return { text: addImport(renewed.text, file), notes: renewed.notes };
}

/** The main configuration without our import; with `keep_glob` as it is. What else changed since setup stays. */
export function unwireMain(text: string): string {
  const entry = findEntry(text, [], 'imports');
  if (entry === undefined || text[entry.value_start] !== '[') return text;
  const edited = removeStrings(text, entry, (value) => value === IMPORTS_GLOB);
  const after = findEntry(edited, [], 'imports');
  const own_line =
    after !== undefined &&
    stringsOf(edited, after).length === 0 &&
    edited.slice(after.value_end).startsWith(MARK);
  return own_line ? removeLine(edited, after) : edited;
}

/** True when the entries of `imports` cover our drop-in directory already. */
export function importsCover(imports: readonly string[]): boolean {
  return imports.some((entry) => {
    const path = posix.normalize(entry);
    if (path === DROP_IN) return true;
    // Only globs whose directory is written out: what a `*` in a directory matches depends on the host.
    return (
      posix.dirname(path) === CONF_D &&
      ['*.toml', '*', '*.*', '*-layerswarm.toml', '50-*.toml'].includes(posix.basename(path))
    );
  });
}

/** The text with every entry of its top-level `imports` mapped, for a check on a copy that lies elsewhere. */
export function mapImports(text: string, map: (entry: string) => string): string {
  const entry = findEntry(text, [], 'imports');
  if (entry === undefined || text[entry.value_start] !== '[') return text;
  const mapped = stringsOf(text, entry).map((e) => JSON.stringify(map(e)));
  return replaceValue(text, entry, `[${mapped.join(', ')}]`);
}

/** The strings under a key of a table; empty when there are none. */
export function stringList(table: ContainerdTable, key: string): readonly string[] {
  const value = table[key];
  return Array.isArray(value) ? value.filter((v): v is string => typeof v === 'string') : [];
}

function importsLine(): string {
  return `imports = [${JSON.stringify(IMPORTS_GLOB)}]${MARK}`;
}

function addImport(text: string, file: string): string {
  const entry = findEntry(text, [], 'imports');
  if (entry === undefined) return insertTopLevel(text, importsLine());
  if (text[entry.value_start] !== '[') {
    throw new DaemonError('config_invalid', `${file}: imports is not a list; mend it first`, {
      file,
    });
  }
  return importsCover(stringsOf(text, entry)) ? text : appendString(text, entry, IMPORTS_GLOB);
}

function renewVersion1(text: string, table: ContainerdTable, file: string): MainEdit {
  if (Number(table['version'] ?? 1) >= 2) return { text, notes: [] };
  const unknown = [
    ...stringList(table, 'disabled_plugins'),
    ...stringList(table, 'required_plugins'),
  ].filter((name) => !Object.hasOwn(VERSION_1_NAMES, name));
  const more = Object.hasOwn(table, 'plugins') ? ['[plugins]', ...unknown] : unknown;
  if (more.length > 0) {
    throw new DaemonError(
      'failed_precondition',
      `${file} is a configuration of version 1, in which containerd's built-in content store cannot be disabled, and it holds more than setup translates (${more.join(', ')}). Rewrite it as version = 2 (plugins under their full names, such as [plugins."io.containerd.grpc.v1.cri"]), restart containerd, and run setup again`,
      { file },
    );
  }
  let edited = text;
  for (const key of ['disabled_plugins', 'required_plugins']) edited = fullNames(edited, key);
  const version = findEntry(edited, [], 'version');
  edited = version === undefined ? insertVersion(edited) : replaceValue(edited, version, '2');
  return {
    text: edited,
    notes: [
      `${file} was a configuration of version 1, in which the built-in content store cannot be disabled; it is version 2 now, with the same settings`,
    ],
  };
}

/** The version goes above the first key, where people look for it. */
function insertVersion(text: string): string {
  const [first] = outlineToml(text).entries;
  if (first === undefined || first.table.length > 0) return insertTopLevel(text, 'version = 2');
  const eol = text.includes('\r\n') ? '\r\n' : '\n';
  return `${text.slice(0, first.start)}version = 2${eol}${text.slice(first.start)}`;
}

function fullNames(text: string, key: string): string {
  const entry = findEntry(text, [], key);
  if (entry === undefined) return text;
  const value = text.slice(entry.value_start, entry.value_end);
  return replaceValue(
    text,
    entry,
    value.replace(/(["'])([a-z]+)\1/g, (all, quote: string, name: string) =>
      Object.hasOwn(VERSION_1_NAMES, name) ? `${quote}${VERSION_1_NAMES[name]}${quote}` : all,
    ),
  );
}
