import { existsSync, mkdirSync, mkdtempSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { Target } from './architecture.ts';
import { npmPackage } from './npm-package.ts';
import { run } from './run-program.ts';

export type NodeRuntime = {
  /** The program, without symbols: 108 MB instead of 127. */
  readonly program: string;
  readonly licence: string;
};

/** The private Node of a target; stripped once and kept in the cache. */
export function nodeRuntime(root: string, cache: string, target: Target): NodeRuntime {
  const from = npmPackage(root, cache, target.node);
  const program = join(cache, `node-${target.node.version}-${target.architecture}`);
  if (!existsSync(program)) {
    mkdirSync(cache, { recursive: true });
    const work = mkdtempSync(join(cache, 'strip-'));
    try {
      const stripped = join(work, 'node');
      run([target.strip.program, '--strip-unneeded', '-o', stripped, join(from, 'bin/node')]);
      renameSync(stripped, program);
    } finally {
      rmSync(work, { recursive: true, force: true });
    }
  }
  return { program, licence: join(from, 'LICENSE') };
}
