import { mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { RUN_PREFIX } from '../host/lab/residue.ts';
import { runCommand } from '../host/lab/run-command.ts';

const ROOT = resolve(import.meta.dirname, '../..');
const BUILD_DEADLINE_MS = 180_000;

let building: Promise<string> | undefined;

/**
 * The program as it is shipped, built once per run into a directory that goes with this process: Node's own type
 * stripping would cost 30 MB of memory and half of the start.
 */
export function builtProduct(): Promise<string> {
  building ??= build();
  return building;
}

async function build(): Promise<string> {
  const directory = mkdtempSync(join(tmpdir(), `${RUN_PREFIX}product-`));
  process.once('exit', () => rmSync(directory, { recursive: true, force: true }));
  for (const name of ['proto', 'node_modules', 'package.json']) {
    symlinkSync(join(ROOT, name), join(directory, name));
  }
  const tsc = join(ROOT, 'node_modules/.bin/tsc');
  const project = ['-p', join(ROOT, 'tsconfig.build.json'), '--outDir', join(directory, 'dist')];
  await runCommand([process.execPath, tsc, ...project, '--sourceMap', 'false'], {
    deadline_ms: BUILD_DEADLINE_MS,
  });
  return join(directory, 'dist/main.js');
}
