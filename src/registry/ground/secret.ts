import { inspect } from 'node:util';

/**
 * Text that only a request may carry. However it is printed, put into JSON, an error or a log line, it shows as `[secret]`; what needs
 * the text itself says `reveal`, and those places are few.
 */
export class Secret {
  readonly #text: string;

  constructor(text: string) {
    this.#text = text;
  }

  /** The text, for a request's header or a program's input and nothing else. */
  reveal(): string {
    return this.#text;
  }

  toString(): string {
    return '[secret]';
  }

  toJSON(): string {
    return '[secret]';
  }

  [inspect.custom](): string {
    return '[secret]';
  }
}
