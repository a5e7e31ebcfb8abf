import type { Logger } from '../../src/ops/logger.ts';

export type LoggedLine = {
  readonly level: string;
  readonly facts: object;
  readonly message: string;
};

/** A logger that keeps its lines, so that a test can ask what an operator would have read. */
export class MemoryLogger implements Logger {
  readonly lines: LoggedLine[] = [];

  error(facts: object, message: string): void {
    this.lines.push({ level: 'error', facts, message });
  }
  warn(facts: object, message: string): void {
    this.lines.push({ level: 'warn', facts, message });
  }
  info(facts: object, message: string): void {
    this.lines.push({ level: 'info', facts, message });
  }
  debug(facts: object, message: string): void {
    this.lines.push({ level: 'debug', facts, message });
  }
  child(): Logger {
    return this;
  }
}
