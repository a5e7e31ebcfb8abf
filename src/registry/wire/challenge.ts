/** What a server asks for: one scheme with its parameters (RFC 9110, 11.6.1). Names are in lower case. */
export type Challenge = {
  readonly scheme: string;
  readonly parameters: ReadonlyMap<string, string>;
};

/** Longest header that is read, and most challenges in it. */
const MAX_LENGTH = 8192;
const MAX_CHALLENGES = 16;

const TOKEN = /[!#$%&'*+.^_`|~\w-]+/y;
const TOKEN68 = /[\w.~+/-]+=*/y;
const SPACE = /[ \t]*/y;
const COMMAS = /[ \t,]*/y;

/**
 * Reads `WWW-Authenticate`. Forgiving: what cannot be read ends the list, and what stood before it counts; of a parameter that stands
 * twice the first counts. Never throws, and takes time in proportion to the length.
 */
export function parseChallenges(header: string): readonly Challenge[] {
  const scan = new Scan(header.slice(0, MAX_LENGTH));
  const found: Challenge[] = [];
  scan.take(COMMAS);
  while (found.length < MAX_CHALLENGES) {
    const scheme = scan.take(TOKEN);
    if (scheme === '') break;
    found.push({ scheme: scheme.toLowerCase(), parameters: parametersOf(scan) });
    if (scan.take(COMMAS) === '' && !scan.is_done) break;
  }
  return found;
}

function parametersOf(scan: Scan): ReadonlyMap<string, string> {
  const parameters = new Map<string, string>();
  if (scan.take(SPACE) === '') return parameters;
  for (;;) {
    const start = scan.at;
    scan.take(COMMAS);
    const name = scan.take(TOKEN).toLowerCase();
    scan.take(SPACE);
    const value = name !== '' && scan.skip('=') ? scan.value() : '';
    if (value === '') {
      // A word without a value is the next scheme, or a token68, which nobody we speak to uses.
      scan.at = start;
      if (parameters.size === 0) scan.takeToken68();
      return parameters;
    }
    if (!parameters.has(name)) parameters.set(name, value.text);
    scan.take(SPACE);
    if (!scan.sees(',')) return parameters;
  }
}

class Scan {
  at = 0;
  readonly #text: string;

  constructor(text: string) {
    this.#text = text;
  }

  get is_done(): boolean {
    return this.at >= this.#text.length;
  }

  /** What the sticky pattern matches here; '' when it does not. */
  take(pattern: RegExp): string {
    pattern.lastIndex = this.at;
    const text = pattern.exec(this.#text)?.[0] ?? '';
    this.at += text.length;
    return text;
  }

  sees(char: string): boolean {
    return this.#text[this.at] === char;
  }

  skip(char: string): boolean {
    if (!this.sees(char)) return false;
    this.at++;
    return true;
  }

  /** What stands behind `=`; '' when it is nothing, or has no end. */
  value(): { readonly text: string } | '' {
    this.take(SPACE);
    const text = this.skip('"') ? this.#quoted() : this.take(TOKEN68) || undefined;
    return text === undefined ? '' : { text };
  }

  /** The rest of a quoted string, without its escapes; undefined when it has no end. */
  #quoted(): string | undefined {
    let value = '';
    for (; this.at < this.#text.length; this.at++) {
      const char = this.#text[this.at]!;
      if (char === '"') {
        this.at++;
        return value;
      }
      if (char === '\\') this.at++;
      value += this.#text[this.at] ?? '';
    }
    return undefined;
  }

  /** Passes over `Negotiate YII…=`: a token68 goes up to a comma or the end, otherwise the word is the next scheme. */
  takeToken68(): void {
    const start = this.at;
    this.take(SPACE);
    const text = this.take(TOKEN68);
    this.take(SPACE);
    if (text === '' || !(this.is_done || this.sees(','))) this.at = start;
  }
}
