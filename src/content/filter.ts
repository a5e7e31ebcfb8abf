import { DaemonError } from '../base/errors.ts';

/** Gives the text of a field, or undefined when the object has no such field. */
export type FieldReader = (path: readonly string[]) => string | undefined;

/** True when the object passes. */
export type Filter = (field: FieldReader) => boolean;

type Token = { readonly kind: 'word' | 'quoted' | 'operator' | 'separator'; readonly text: string };

/** Most filters of one request, and longest text of one. Real ones are a handful of short ones. */
const MAX_FILTERS = 64;
const MAX_FILTER_LENGTH = 4096;

/** A pattern looks at no more of a field than this, so that one match has a bounded cost. */
const MAX_SUBJECT_LENGTH = 512;
const MAX_REPEATS = 2;
/** Each of these doubles the ways of a match at most. */
const MAX_CHOICES = 6;

/**
 * Reads filters in containerd's grammar (its package `pkg/filters`): one filter is `<fieldpath>[<op><value>]` with `==`, `!=` and `~=`, and
 * all of its comma-separated parts must agree; of several filters one suffices, and none at all lets everything pass. A quoted
 * field or value is a Go string literal; a pattern may also stand between `/` or `|`.
 *
 * Patterns are a subset of Go's: no repeated groups, at most two repeats and a few groups and options, because JavaScript's matcher backtracks.
 * `invalid_argument` for anything that does not fit.
 */
export function parseFilters(texts: readonly string[]): Filter {
  if (texts.length === 0) return () => true;
  if (texts.length > MAX_FILTERS) throw invalid('there are too many filters', `${texts.length}`);
  const filters = texts.map(parseFilter);
  return (field) => filters.some((filter) => filter(field));
}

function parseFilter(text: string): Filter {
  if (text === '') return () => true;
  if (text.length > MAX_FILTER_LENGTH) throw invalid('the filter is too long', text);
  const tokens = tokenize(text);
  const parts: Filter[] = [];
  for (let at = 0; ; ) {
    const [part, next] = parseSelector(tokens, at, text);
    parts.push(part);
    if (next === tokens.length) break;
    if (tokens[next]?.text !== ',') throw invalid('a comma is expected between its parts', text);
    at = next + 1;
  }
  return (field) => parts.every((part) => part(field));
}

function parseSelector(tokens: readonly Token[], start: number, text: string): [Filter, number] {
  const path: string[] = [];
  let at = start;
  for (;;) {
    path.push(fieldName(tokens[at], text));
    at += 1;
    if (tokens[at]?.kind !== 'separator' || tokens[at]?.text !== '.') break;
    at += 1;
  }
  const operator = tokens[at];
  if (operator === undefined || operator.kind === 'separator') {
    return [(field) => field(path) !== undefined, at];
  }
  const value = tokens[at + 1];
  if (operator.kind !== 'operator' || value === undefined) {
    throw invalid('a field, an operator and a value are expected', text);
  }
  return [comparison(path, operator.text, value, text), at + 2];
}

function fieldName(token: Token | undefined, text: string): string {
  if (token?.kind === 'word' && /^[A-Za-z0-9_]+$/.test(token.text)) return token.text;
  if (token?.kind === 'quoted') return unquote(token.text, text, false);
  throw invalid('a field name is expected', text);
}

function comparison(path: readonly string[], operator: string, token: Token, text: string): Filter {
  if (token.kind !== 'word' && token.kind !== 'quoted') throw invalid('a value is expected', text);
  const value = token.kind === 'quoted' ? unquote(token.text, text, operator === '~=') : token.text;
  switch (operator) {
    case '==':
      return (field) => field(path) === value;
    case '!=':
      // containerd lets an object without the field pass, unless the value is the empty text.
      return (field) => (field(path) ?? '') !== value;
    case '~=': {
      const pattern = parsePattern(value, text);
      return (field) => pattern.test((field(path) ?? '').slice(0, MAX_SUBJECT_LENGTH));
    }
    default:
      throw invalid('the operators are ==, != and ~=', text);
  }
}

/** Tokens of one filter. What follows an operator is a value, which may hold dots and colons. */
function tokenize(text: string): readonly Token[] {
  const tokens: Token[] = [];
  let wantsValue = false;
  for (let at = 0; at < text.length; ) {
    const rest = text.slice(at);
    const space = /^\s+/.exec(rest)?.[0];
    if (space !== undefined) {
      at += space.length;
      continue;
    }
    const token = nextToken(rest, wantsValue);
    if (token === undefined) throw invalid('it has a character that does not belong there', text);
    wantsValue = token.kind === 'operator';
    tokens.push(token);
    at += token.text.length;
  }
  return tokens;
}

function nextToken(rest: string, wantsValue: boolean): Token | undefined {
  const patterns: readonly (readonly [Token['kind'], RegExp])[] = [
    ['quoted', /^(["/|])(?:\\[^\n]|(?!\1)[^\\\n])*\1/],
    ['separator', /^[,.]/],
    ['operator', /^[=!~]+/],
    ['word', wantsValue ? /^[^,\s\p{Cc}"/|][^,\s\p{Cc}]*/u : /^[A-Za-z0-9_]+/],
  ];
  for (const [kind, pattern] of patterns) {
    const found = pattern.exec(rest)?.[0];
    if (found !== undefined) return { kind, text: found };
  }
  return undefined;
}

const ESCAPES: Readonly<Record<string, string>> = {
  a: '\x07',
  b: '\b',
  f: '\f',
  n: '\n',
  r: '\r',
  t: '\t',
  v: '\v',
};

/** The text inside a Go string literal; between `/` or `|` only the delimiter itself is escaped, the rest is the pattern's. */
function unquote(quoted: string, text: string, isPattern: boolean): string {
  const mark = quoted.charAt(0);
  const inner = quoted.slice(1, -1);
  if (mark !== '"') {
    if (!isPattern) throw invalid('this kind of quote is for patterns only', text);
    return inner.replaceAll(`\\${mark}`, mark);
  }
  const escape = /\\(?:([0-7]{3})|x([\dA-Fa-f]{2})|u([\dA-Fa-f]{4})|U([\dA-Fa-f]{8})|(.))/gs;
  return inner.replace(
    escape,
    (_whole, octal?: string, x?: string, u?: string, long?: string, one?: string) => {
      if (one !== undefined) {
        if (one === '\\' || one === '"') return one;
        const known = ESCAPES[one];
        if (known === undefined) throw invalid('it has an unknown escape', text);
        return known;
      }
      const code = octal === undefined ? parseInt(x ?? u ?? long ?? '', 16) : parseInt(octal, 8);
      if (code > 0x10ffff) throw invalid('it has an escape beyond Unicode', text);
      return String.fromCodePoint(code);
    },
  );
}

function parsePattern(source: string, text: string): RegExp {
  const bare = source.replace(/\\./gs, '_').replace(/\[\^?\]?[^\]]*\]/gs, '_');
  if (/\)[*+?{]|\(\?/.test(bare)) throw invalid('its pattern repeats a group', text);
  const repeats = bare.match(/[*+]|\{/g) ?? [];
  if (repeats.length > MAX_REPEATS) throw invalid('its pattern has too many repeats', text);
  if ((bare.match(/[?(]/g) ?? []).length > MAX_CHOICES) {
    throw invalid('its pattern has too many groups and options', text);
  }
  if (/\\[1-9k]/.test(source)) throw invalid('its pattern refers back', text);
  try {
    return new RegExp(source, 'u');
  } catch (cause) {
    throw invalid('its pattern cannot be read', text, cause);
  }
}

function invalid(reason: string, text: string, cause?: unknown): DaemonError {
  return new DaemonError(
    'invalid_argument',
    `filter ${JSON.stringify(text.slice(0, 160))} cannot be used: ${reason}`,
    {},
    { cause },
  );
}
