import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { RUN_PREFIX } from '../host/lab/residue.ts';
import { bundle } from '../setup/bundle.ts';

/**
 * The program as it is shipped, built once per run into a directory that goes with this process: Node's own type
 * stripping would cost 30 MB of memory and half of the start.
 */
let building: Promise<string> | undefined;

function builtProduct(): Promise<string> {
  building ??= build();
  return building;
}

/** Its command line, without a subcommand; `LAYERSWARM_BENCH_NODE` gives its Node further options, e.g. `--cpu-prof --cpu-prof-dir=DIR`. */
export async function productArgv(): Promise<string[]> {
  const options = (process.env['LAYERSWARM_BENCH_NODE'] ?? '').split(' ').filter((o) => o !== '');
  const node = [process.execPath, '--disable-warning=ExperimentalWarning', ...options];
  return [...node, await builtProduct()];
}

async function build(): Promise<string> {
  const directory = mkdtempSync(join(tmpdir(), `${RUN_PREFIX}product-`));
  process.once('exit', () => rmSync(directory, { recursive: true, force: true }));
  await bundle(directory);
  return join(directory, 'main.js');
}
