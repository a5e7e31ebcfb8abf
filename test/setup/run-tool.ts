import { spawnSync } from 'node:child_process';
import { realpathSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

/** The checkout, with a slash at its end. */
export const ROOT = fileURLToPath(new URL('../../', import.meta.url));

/**
 * Runs a script of the checkout, or a tool of `node_modules/.bin`, on the Node that runs now: their `#!/usr/bin/env node` would find
 * the machine's own. Output goes to the terminal. Returns the exit status, 1 when a signal ended it.
 */
export function runTool(script: string, args: readonly string[]): number {
  const file = realpathSync(script.includes('/') ? script : `node_modules/.bin/${script}`);
  const { status } = spawnSync(process.execPath, [file, ...args], { cwd: ROOT, stdio: 'inherit' });
  return status ?? 1;
}
