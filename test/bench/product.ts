import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { RUN_PREFIX } from '../host/lab/residue.ts';
import { bundle } from '../setup/bundle.ts';

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
  await bundle(directory);
  return join(directory, 'main.js');
}
