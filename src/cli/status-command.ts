import type { Clock } from '../base/clock.ts';
import { DaemonError, isAbort } from '../base/errors.ts';
import type { StatusResponse__Output } from '../gen/layerswarm/control/v1/StatusResponse.ts';
import type { Output } from './output.ts';
import { renderStatus } from './render.ts';

/** Time between two answers of `--watch`, in ms. */
const WATCH_INTERVAL_MS = 1_000;
/** Cursor home and clear to the end of the screen: redraws without the flicker of a full clear. */
const REDRAW = '\u001b[H\u001b[J';

/** Exit codes of `layerswarm status`: what a script wants to know. A daemon that is down is `unavailable` (69). */
const STATUS_EXIT: Readonly<Record<string, number>> = {
  connected: 0,
  alone: 1,
  degraded: 1,
  starting: 2,
  draining: 2,
};

type Modules = {
  readonly output: Output;
  readonly clock: Clock;
  /** One Status call. `unavailable` when no daemon answers. */
  readonly fetchStatus: (signal: AbortSignal) => Promise<StatusResponse__Output>;
};

/** Prints the daemon's status once, or every second with `watch` until the signal; resolves to the exit code. */
export async function runStatus(
  modules: Modules,
  options: { readonly json?: boolean | undefined; readonly watch?: boolean | undefined },
  signal: AbortSignal,
): Promise<number> {
  const { output, clock } = modules;
  if (options.watch !== true) {
    const status = await modules.fetchStatus(signal);
    output.out(`${render(status, output, options.json === true, 2)}\n`);
    return exitCode(status);
  }
  let code = 0;
  while (!signal.aborted) {
    let text: string;
    try {
      const status = await modules.fetchStatus(signal);
      code = exitCode(status);
      text = render(status, output, options.json === true, 0);
    } catch (error) {
      if (isAbort(error)) break;
      // A daemon that restarts is what one watches for: say so and go on.
      if (!(error instanceof DaemonError)) throw error;
      code = 1;
      text = options.json === true ? errorAsJson(error) : error.message;
    }
    output.out(`${output.terminal && options.json !== true ? REDRAW : ''}${text}\n`);
    await clock.sleep(WATCH_INTERVAL_MS, { signal }).catch((error: unknown) => {
      if (!isAbort(error) && !signal.aborted) throw error;
    });
  }
  return code;
}

/** An error for `--json`: one line with its code from the closed list and its sentence. */
export function errorAsJson(error: DaemonError): string {
  return JSON.stringify({ error: { code: error.code, message: error.message } });
}

function exitCode(status: StatusResponse__Output): number {
  return STATUS_EXIT[status.state] ?? 2;
}

function render(
  status: StatusResponse__Output,
  output: Output,
  json: boolean,
  indent: number,
): string {
  return json
    ? JSON.stringify(protoNames(status), null, indent)
    : renderStatus(status, { color: output.terminal });
}

/** The message with the field names of `control.proto`, so that the text documents the JSON. */
function protoNames(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(protoNames);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, inner]) => [
      key.replace(/[A-Z]/g, (c) => `_${c.toLowerCase()}`),
      protoNames(inner),
    ]),
  );
}
