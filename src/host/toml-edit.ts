import {
  arrayElements,
  lineEnd,
  lineStart,
  nextLine,
  outlineToml,
  skipSpaces,
  type TomlEntry,
  type TomlHeader,
} from './toml-scan.ts';

/** The line end of a text: that of its first line, `\n` when it has none. */
function lineEndOf(text: string): '\n' | '\r\n' {
  const first = text.indexOf('\n');
  return first > 0 && text[first - 1] === '\r' ? '\r\n' : '\n';
}

/** The entry of a key of the top level, or of a table; undefined when it is not there as a plain `key = value`. */
export function findEntry(
  text: string,
  table: readonly string[],
  key: string,
): TomlEntry | undefined {
  const path = [...table, key].join('\0');
  return outlineToml(text).entries.find((e) => [...e.table, ...e.key].join('\0') === path);
}

/** The text with one value replaced; everything else stays byte for byte. */
export function replaceValue(text: string, entry: TomlEntry, value: string): string {
  return text.slice(0, entry.value_start) + value + text.slice(entry.value_end);
}

/** The text with a `key = value` line at the top level, before the first table. A missing last line end is added first. */
export function insertTopLevel(text: string, line: string): string {
  const { entries, headers } = outlineToml(text);
  const eol = lineEndOf(text);
  const top = entries.filter((e) => e.table.length === 0);
  // Behind the version, which people look for at the top; else behind the last key that is there.
  const anchor = top.find((e) => e.key.join('.') === 'version') ?? top.at(-1);
  if (anchor !== undefined) return insertLine(text, nextLine(text, anchor.value_end), line, eol);
  const [first] = headers;
  if (first === undefined) return insertLine(text, text.length, line, eol);
  return insertLine(text, aboveComments(text, first), line, eol);
}

/** The text with `key = value` in a table: behind the header when the table is there, else in a new table at the end. */
export function insertIntoTable(
  text: string,
  table: readonly string[],
  key: string,
  value: string,
): string {
  const eol = lineEndOf(text);
  const path = table.join('.');
  const { headers, entries } = outlineToml(text);
  const header = headers.find((h) => h.path.join('.') === path);
  if (header === undefined) {
    const gap = text === '' || /\n\r?\n$/.test(text) ? '' : eol;
    return insertLine(text, text.length, `${gap}[${path}]${eol}${key} = ${value}`, eol);
  }
  const last = entries.filter((e) => e.table.join('.') === path).at(-1);
  const at = nextLine(text, last === undefined ? header.start : last.value_end);
  return insertLine(text, at, `${key} = ${value}`, eol);
}

/**
 * The text with one more string in an array value. The others, their comments and their layout stay: a list with an
 * element per line gets one more line, a trailing comma stays one.
 */
export function appendString(text: string, entry: TomlEntry, value: string): string {
  const { elements, close } = arrayElements(text, entry.value_start);
  const literal = JSON.stringify(value);
  const last = elements.at(-1);
  if (last === undefined) {
    const at = entry.value_start + 1;
    return text.slice(0, at) + literal + text.slice(at);
  }
  const head = lineStart(text, last.start);
  const indent = text.slice(head, last.start);
  const own_line = head > entry.value_start && indent.trim() === '';
  if (!own_line) return `${text.slice(0, last.end)}, ${literal}${text.slice(last.end)}`;
  const eol = lineEndOf(text);
  const comma = skipSpaces(text, last.end);
  const has_comma = text[comma] === ',';
  const tail = has_comma ? comma + 1 : last.end;
  // Behind a comment that belongs to the last element, but not past the bracket that closes the list.
  const comment = skipSpaces(text, tail);
  const at = text[comment] === '#' && comment < close ? lineEnd(text, comment) : tail;
  const added = `${eol}${indent}${literal}${has_comma ? ',' : ''}`;
  const between = text.slice(tail, at);
  return `${text.slice(0, tail)}${has_comma ? '' : ','}${between}${added}${text.slice(at)}`;
}

/** The text without the elements of an array that `unwanted` names; one comma goes with each. */
export function removeStrings(
  text: string,
  entry: TomlEntry,
  unwanted: (value: string) => boolean,
): string {
  let result = text;
  for (;;) {
    const { elements, close } = arrayElements(result, entry.value_start);
    const index = elements.findIndex((e) => unwanted(stringOf(result, e) ?? ''));
    const element = elements[index];
    if (element === undefined) return result;
    const next = elements[index + 1];
    const before = elements[index - 1];
    const head = lineStart(result, element.start);
    const own_line =
      head > entry.value_start &&
      result.slice(head, element.start).trim() === '' &&
      /^[ \t]*,?[ \t]*(#.*)?\r?$/.test(
        result.slice(element.end, nextLine(result, element.end)).replace(/\n$/, ''),
      );
    if (own_line && (next !== undefined || hasComma(result, element.end) || before === undefined)) {
      result = result.slice(0, head) + result.slice(nextLine(result, element.end));
    } else if (next !== undefined) {
      result = result.slice(0, element.start) + result.slice(next.start);
    } else if (before !== undefined) {
      // The comma before it goes too; what stands between (a comment of the one before) stays.
      const comma = result.indexOf(',', before.end);
      const from = own_line ? lineEnd(result, lineStart(result, head - 1)) : element.start;
      const kept = result.slice(comma + 1, from).replace(/[ \t]+$/, '');
      result = result.slice(0, comma) + kept + result.slice(element.end);
    } else {
      const end = hasComma(result, element.end)
        ? result.indexOf(',', element.end) + 1
        : element.end;
      result = result.slice(0, element.start) + result.slice(Math.min(end, close));
    }
  }
}

/** The strings of an array value. Elements of another kind are left out. */
export function stringsOf(text: string, entry: TomlEntry): readonly string[] {
  if (text[entry.value_start] !== '[') return [];
  return arrayElements(text, entry.value_start).elements.flatMap((e) => stringOf(text, e) ?? []);
}

/** The text without the whole line of an entry. */
export function removeLine(text: string, entry: TomlEntry): string {
  return text.slice(0, lineStart(text, entry.start)) + text.slice(nextLine(text, entry.value_end));
}

function stringOf(
  text: string,
  { start, end }: { start: number; end: number },
): string | undefined {
  const raw = text.slice(start, end);
  if (raw.startsWith("'")) return raw.slice(1, -1);
  if (!raw.startsWith('"')) return undefined;
  try {
    return JSON.parse(raw) as string;
  } catch {
    return undefined;
  }
}

function hasComma(text: string, from: number): boolean {
  return text[skipSpaces(text, from)] === ',';
}

function insertLine(text: string, at: number, line: string, eol: string): string {
  const before = text.slice(0, at);
  const open = before !== '' && !before.endsWith('\n') && before !== '\u{feff}';
  return `${before}${open ? eol : ''}${line}${eol}${text.slice(at)}`;
}

/** The start of the comment lines that stand directly above a header: they belong to it. */
function aboveComments(text: string, header: TomlHeader): number {
  let at = lineStart(text, header.start);
  while (at > 0) {
    const above = lineStart(text, at - 1);
    if (!text.slice(above, at).trimStart().startsWith('#')) break;
    at = above;
  }
  return at;
}
