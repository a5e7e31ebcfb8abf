import { existsSync, globSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import type { StagedFile } from './staged-tree.ts';

const HOME = '/usr/lib/layerswarm';
const ADDON = 'native/libp2p-quic.node';

/**
 * The built program as it lies on a host: everything of `dist` but esbuild's record, with the addon of the target. Fails when dist is not a
 * self-contained bundle.
 */
export function programFiles(
  dist: string,
  { version, addon }: { readonly version: string; readonly addon: string | undefined },
): StagedFile[] {
  for (const name of ['main.js', 'package.json', 'meta.json', 'proto', ADDON]) {
    if (!existsSync(join(dist, name))) {
      throw new Error(`${dist} has no ${name}: it is not the bundle that "npm run build" makes`);
    }
  }
  const names = globSync('**/*', { cwd: dist, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(dist.length + 1))
    .filter((name) => name !== 'meta.json' && name !== ADDON);
  const files = names.map(
    (name): StagedFile => ({
      path: `${HOME}/${name}`,
      mode: 0o644,
      content: contentOf(join(dist, name), version),
    }),
  );
  if (addon !== undefined) {
    files.push({ path: `${HOME}/${ADDON}`, mode: 0o644, content: { copy_of: addon } });
  }
  return files;
}

function contentOf(file: string, version: string): StagedFile['content'] {
  if (basename(file) === 'main.js') {
    // Started by its own Node, never by its first line, which would name another one. A comment keeps the source map right.
    return readFileSync(file, 'utf8').replace(/^#!.*/, '// the program layerswarm');
  }
  if (basename(file) === 'package.json') {
    const about = JSON.parse(readFileSync(file, 'utf8')) as Readonly<Record<string, unknown>>;
    return `${JSON.stringify({ ...about, version }, null, 2)}\n`;
  }
  if (file.endsWith('.js.map')) return withPlainSources(readFileSync(file, 'utf8'));
  return { copy_of: file };
}

/** Sources are named from the checkout, wherever it and its node_modules were. */
function withPlainSources(map: string): string {
  const parsed = JSON.parse(map) as { sources: readonly string[] };
  const sources = parsed.sources.map((name) => name.replace(/^.*?(?=(?:node_modules|src)\/)/, ''));
  return JSON.stringify({ ...parsed, sources });
}
