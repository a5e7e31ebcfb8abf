/**
 * `npm run package`: deb and rpm from one staged tree for each architecture, then lintian and rpmlint. The same input gives the same
 * bytes. README.md has what is installed where.
 */
import { mkdirSync, mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join, resolve } from 'node:path';
import { ROOT, runTool } from '../test/setup/run-tool.ts';
import { type Target, TARGETS } from './architecture.ts';
import { ensureBuildTools } from './build-tools.ts';
import { packageContents } from './contents.ts';
import { buildDeb } from './deb.ts';
import { lintDeb, lintRpm } from './lint.ts';
import { nodeRuntime } from './node-runtime.ts';
import { npmPackage } from './npm-package.ts';
import { type Options, parseOptions, USAGE } from './options.ts';
import { readRelease } from './release.ts';
import { buildRpm } from './rpm.ts';
import { writeTree } from './staged-tree.ts';

type Row = { readonly name: string; readonly bytes: number };

const say = (line: string): void => void process.stdout.write(`package: ${line}\n`);

function main(args: readonly string[]): void {
  const options = readOptions(args);
  const targets = options.architectures.map((name) => TARGETS[name]);
  ensureBuildTools(targets, options.formats, say);
  const dist = options.dist === undefined ? build() : resolve(options.dist);
  const out = resolve(options.out);
  mkdirSync(out, { recursive: true });
  const rows = targets.flatMap((target) => packageFor(target, { options, dist, out }));
  const width = Math.max(...rows.map(({ name }) => name.length));
  for (const { name, bytes } of rows) {
    say(`${name.padEnd(width)}  ${(bytes / 1e6).toFixed(1).padStart(6)} MB`);
  }
}

function readOptions(args: readonly string[]): Options {
  try {
    return parseOptions(args);
  } catch (error) {
    process.stderr.write(
      `package: ${error instanceof Error ? error.message : String(error)}\n${USAGE}`,
    );
    process.exit(64);
  }
}

function build(): string {
  if (runTool('test/setup/build.ts', []) !== 0) throw new Error('npm run build failed');
  return join(ROOT, 'dist');
}

function packageFor(
  target: Target,
  { options, dist, out }: { options: Options; dist: string; out: string },
): Row[] {
  const root = ROOT.replace(/\/$/, '');
  const cache = join(root, '.cache/packaging');
  const release = readRelease(root, options.version, process.env);
  const node = nodeRuntime(root, cache, target);
  const addon = addonOf(target, root, cache);
  if (addon === undefined) {
    say(`${target.architecture}: no pinned native part of QUIC; this package goes over TCP only`);
  }
  const directory = mkdtempSync(join(tmpdir(), 'layerswarm-tree-'));
  try {
    const files = packageContents({ root, dist, target, release, node, addon });
    const tree = writeTree(directory, files, release.epoch_s);
    const order = { root, tree, target, release, out, fast: options.fast };
    const rows: Row[] = [{ name: `installed, ${target.architecture}`, bytes: tree.size_bytes }];
    for (const format of options.formats) {
      const file = format === 'deb' ? buildDeb(order) : buildRpm(order);
      rows.push({ name: basename(file), bytes: statSync(file).size });
      if (!options.lint) continue;
      if (format === 'deb') lintDeb(file);
      else lintRpm(root, file);
    }
    return rows;
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

function addonOf({ addon }: Target, root: string, cache: string): string | undefined {
  if (addon === undefined) return undefined;
  const from = npmPackage(root, cache, addon);
  const suffix = addon.name.replace('@chainsafe/libp2p-quic-', '');
  return join(from, `libp2p-quic.${suffix}.node`);
}

try {
  main(process.argv.slice(2));
} catch (error) {
  // One sentence for whoever packages; a defect of ours still shows where it is.
  const known = error instanceof Error && error.constructor === Error;
  process.stderr.write(`package: ${known ? error.message : String((error as Error).stack)}\n`);
  process.exitCode = 1;
}
