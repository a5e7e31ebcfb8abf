import { DaemonError } from '../base/errors.ts';

/** One `key = value` of a TOML text: where it stands, as offsets into the text. */
export type TomlEntry = {
  /** The table it stands in; empty at the top level. */
  readonly table: readonly string[];
  /** The parts of its (possibly dotted) key. */
  readonly key: readonly string[];
  /** First byte of the key. */
  readonly start: number;
  readonly value_start: number;
  /** One past the value; a comment may follow on the line. */
  readonly value_end: number;
};

/** One `[table]` or `[[table]]` header. */
export type TomlHeader = { readonly path: readonly string[]; readonly start: number };

/** What stands where in a TOML text. */
export type TomlOutline = {
  readonly entries: readonly TomlEntry[];
  readonly headers: readonly TomlHeader[];
};

/** One element of an array value. */
export type TomlElement = { readonly start: number; readonly end: number };

/**
 * Finds the statements of a TOML 1.0 text without changing a byte of it. The text must have passed a real parser
 * before: this one only measures. `config_invalid` where it loses its way nevertheless.
 */
export function outlineToml(text: string): TomlOutline {
  const entries: TomlEntry[] = [];
  const headers: TomlHeader[] = [];
  let table: readonly string[] = [];
  let at = text.startsWith('\u{feff}') ? 1 : 0;
  for (;;) {
    at = skipBlank(text, at);
    if (at >= text.length) return { entries, headers };
    const start = at;
    if (text[at] === '[') {
      const array = text.startsWith('[[', at);
      const key = readKey(text, array ? at + 2 : at + 1);
      expect(text, key.end, array ? ']]' : ']');
      at = key.end + (array ? 2 : 1);
      table = key.parts;
      headers.push({ path: table, start });
    } else {
      const key = readKey(text, at);
      expect(text, key.end, '=');
      const value_start = skipSpaces(text, key.end + 1);
      const value_end = skipValue(text, value_start);
      entries.push({ table, key: key.parts, start, value_start, value_end });
      at = value_end;
    }
    at = skipLineRest(text, at);
  }
}

/** The elements of the array whose `[` stands at `start`, and where its `]` is. */
export function arrayElements(
  text: string,
  start: number,
): { readonly elements: readonly TomlElement[]; readonly close: number } {
  const elements: TomlElement[] = [];
  let at = start + 1;
  for (;;) {
    at = skipBlank(text, at);
    if (at >= text.length) throw lost(text, start);
    if (text[at] === ']') return { elements, close: at };
    if (text[at] === ',') {
      at += 1;
      continue;
    }
    const end = skipValue(text, at);
    elements.push({ start: at, end });
    at = end;
  }
}

/** Past spaces, tabs, line ends and comments. */
function skipBlank(text: string, from: number): number {
  let at = from;
  for (; at < text.length; at += 1) {
    const c = text[at]!;
    if (c === '#') at = lineEnd(text, at) - 1;
    else if (c !== ' ' && c !== '\t' && c !== '\n' && c !== '\r') break;
  }
  return Math.min(at, text.length);
}

/** Past spaces and tabs. */
export function skipSpaces(text: string, from: number): number {
  let at = from;
  while (text[at] === ' ' || text[at] === '\t') at += 1;
  return at;
}

/** Where the line that holds `from` ends: before its line end, or at the end of the text. */
export function lineEnd(text: string, from: number): number {
  const newline = text.indexOf('\n', from);
  if (newline === -1) return text.length;
  return newline > from && text[newline - 1] === '\r' ? newline - 1 : newline;
}

/** Where the line that holds `from` begins. */
export function lineStart(text: string, from: number): number {
  return from === 0 ? 0 : text.lastIndexOf('\n', from - 1) + 1;
}

/** Where the next line begins, or the end of the text. */
export function nextLine(text: string, from: number): number {
  const newline = text.indexOf('\n', from);
  return newline === -1 ? text.length : newline + 1;
}

function readKey(text: string, from: number): { parts: string[]; end: number } {
  const parts: string[] = [];
  let at = from;
  for (;;) {
    at = skipSpaces(text, at);
    const c = text[at];
    if (c === '"' || c === "'") {
      const end = skipString(text, at);
      const raw = text.slice(at, end);
      parts.push(c === '"' ? unquote(raw) : raw.slice(1, -1));
      at = end;
    } else {
      const bare = /[A-Za-z0-9_-]+/y;
      bare.lastIndex = at;
      const word = bare.exec(text)?.[0];
      if (word === undefined) throw lost(text, at);
      parts.push(word);
      at += word.length;
    }
    at = skipSpaces(text, at);
    if (text[at] !== '.') return { parts, end: at };
    at += 1;
  }
}

/** Basic strings of keys: the escapes of TOML are those of JSON and two more, which no key of ours has. */
function unquote(raw: string): string {
  try {
    return JSON.parse(raw) as string;
  } catch {
    return raw.slice(1, -1);
  }
}

function skipValue(text: string, at: number): number {
  const c = text[at];
  if (c === '"' || c === "'") return skipString(text, at);
  if (c === '[') return arrayElements(text, at).close + 1;
  if (c === '{') return skipInlineTable(text, at);
  const scalar = /[^\s,#\]}]+(?: \d{2}:[^\s,#\]}]+)?/y; // a date and a time may be joined by one space
  scalar.lastIndex = at;
  const word = scalar.exec(text)?.[0];
  if (word === undefined) throw lost(text, at);
  return at + word.length;
}

function skipInlineTable(text: string, start: number): number {
  let at = start + 1;
  for (;;) {
    at = skipBlank(text, at);
    if (at >= text.length) throw lost(text, start);
    if (text[at] === '}') return at + 1;
    if (text[at] === ',') {
      at += 1;
      continue;
    }
    const key = readKey(text, at);
    expect(text, key.end, '=');
    at = skipValue(text, skipBlank(text, key.end + 1));
  }
}

function skipString(text: string, start: number): number {
  const quote = text[start]!;
  const triple = quote.repeat(3);
  const multi = text.startsWith(triple, start);
  const close = multi ? triple : quote;
  let at = start + close.length;
  for (; at < text.length; at += 1) {
    if (quote === '"' && text[at] === '\\') at += 1;
    else if (text.startsWith(close, at)) {
      at += close.length;
      // Up to two quotes may stand directly before the closing three.
      while (multi && text[at] === quote) at += 1;
      return at;
    } else if (!multi && text[at] === '\n') break;
  }
  throw lost(text, start);
}

function skipLineRest(text: string, from: number): number {
  const at = skipSpaces(text, from);
  if (text[at] === '#') return nextLine(text, at);
  if (at < text.length && text[at] !== '\n' && text[at] !== '\r') throw lost(text, at);
  return nextLine(text, at);
}

function expect(text: string, at: number, what: string): void {
  if (!text.startsWith(what, at)) throw lost(text, at);
}

function lost(text: string, at: number): DaemonError {
  const line = text.slice(0, at).split('\n').length;
  return new DaemonError('config_invalid', `line ${line}: this TOML cannot be edited safely`, {
    line,
  });
}
