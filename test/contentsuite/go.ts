import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

/** The Go module of the conformance suite. */
export const GO_MODULE = fileURLToPath(new URL('.', import.meta.url));

/** False when tests that need Go run; else the reason to skip them. In CI they fail instead of being skipped. */
export function goMissing(): string | false {
  if (process.env['CI'] !== undefined && process.env['CI'] !== 'false') return false;
  return spawnSync('go', ['version']).status === 0 ? false : 'Go is not installed';
}
