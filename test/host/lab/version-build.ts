// The program as bundles of its own: this checkout's, and that of an older commit, built by that commit's own build.
import { mkdir, symlink, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { bundle } from '../../setup/bundle.ts';
import { runCommand, tryCommand } from './run-command.ts';

const ROOT = resolve(import.meta.dirname, '../../..');
const BUILD_DEADLINE_MS = 120_000;

/** The first version: cache blobs lie under `blobs/` with marks, the swarm speaks what hosts in the field speak. */
export const FIRST_VERSION = 'd2e48132c08390dc372f7c4961c7f9ca8cef85c4';

/**
 * Builds what `commit` was below `work` and resolves to its `main.js`. Nothing of the repository changes. Rejects with the reason when the
 * commit is not here, as in a shallow clone: a test that needs it must fail then, not pass without it.
 */
export async function buildCommit(commit: string, work: string): Promise<string> {
  const known = await tryCommand(['git', '-C', ROOT, 'cat-file', '-e', `${commit}^{commit}`]);
  if (known.code !== 0)
    throw new Error(
      `commit ${commit} of the older version is not in this clone; fetch the whole history (git fetch --unshallow) and run again: ${known.stderr.trim()}`,
    );
  const tree = join(work, 'tree');
  await mkdir(tree, { recursive: true });
  const archive = join(work, 'tree.tar');
  await runCommand(['git', '-C', ROOT, 'archive', '--output', archive, commit]);
  await runCommand(['tar', '-x', '-f', archive, '-C', tree]);
  await symlink(join(ROOT, 'node_modules'), join(tree, 'node_modules'));
  const out = join(work, 'dist');
  const build = join(work, 'build.ts');
  const module = pathToFileURL(join(tree, 'test/setup/bundle.ts')).href;
  await writeFile(build, `import { bundle } from '${module}';\nawait bundle('${out}');\n`);
  await runCommand([process.execPath, '--disable-warning=ExperimentalWarning', build], {
    cwd: tree,
    deadline_ms: BUILD_DEADLINE_MS,
  });
  return join(out, 'main.js');
}

/** Builds this checkout below `work` and resolves to its `main.js`. */
export async function buildCheckout(work: string): Promise<string> {
  const out = join(work, 'dist');
  await bundle(out);
  return join(out, 'main.js');
}
