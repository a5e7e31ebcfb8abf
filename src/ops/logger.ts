import { type DestinationStream, type Level, pino } from 'pino';

/** The part of pino the rooms use. Message = short fixed sentence; data goes into the object. */
export interface Logger {
  error(facts: object, message: string): void;
  warn(facts: object, message: string): void;
  info(facts: object, message: string): void;
  debug(facts: object, message: string): void;
  child(bindings: { room: string }): Logger;
}

export type LogLevel = Extract<Level, 'error' | 'warn' | 'info' | 'debug'> | 'silent';

/** Field names whose values never reach a log line, wherever they stand. */
const SECRET_FIELDS = ['key', 'cluster_key', 'token', 'password', 'secret', 'authorization'];

/**
 * JSON lines on stdout (journald keeps them); no transports, no worker threads. `err` fields are written with stack.
 * Tests give a destination of their own.
 */
export function createLogger(
  config: { readonly level: LogLevel },
  destination?: DestinationStream,
): Logger {
  return pino(
    {
      level: config.level,
      base: null,
      redact: { paths: SECRET_FIELDS.flatMap((f) => [f, `*.${f}`]), censor: '[secret]' },
      formatters: { level: (label) => ({ level: label }) },
      timestamp: pino.stdTimeFunctions.isoTime,
    },
    destination ?? pino.destination({ fd: 1, sync: true }),
  );
}
