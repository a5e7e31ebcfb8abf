import { createHash } from 'node:crypto';
import { mkdirSync, readFileSync, rmSync, utimesSync, writeFileSync, chmodSync } from 'node:fs';
import { join } from 'node:path';
import type { Target } from './architecture.ts';
import { debianControl, debianVersion } from './debian-texts.ts';
import { DEB_SCRIPTS, maintainerScript } from './maintainer-script.ts';
import type { Release } from './release.ts';
import { run } from './run-program.ts';
import { type StagedTree, stamp } from './staged-tree.ts';

export type PackageOrder = {
  readonly root: string;
  readonly tree: StagedTree;
  readonly target: Target;
  readonly release: Release;
  readonly out: string;
  readonly fast: boolean;
};

/** Builds the deb from the tree (which is afterwards as it was) and returns its path. */
export function buildDeb({ root, tree, target, release, out, fast }: PackageOrder): string {
  const file = join(out, `layerswarm_${debianVersion(release)}_${target.architecture}.deb`);
  const control = join(tree.directory, 'DEBIAN');
  mkdirSync(control);
  try {
    const put = (name: string, text: string, mode = 0o644): void => {
      writeFileSync(join(control, name), text);
      chmodSync(join(control, name), mode);
    };
    put('control', debianControl(target, release, tree.size_bytes));
    put('md5sums', checksums(tree));
    put('conffiles', `${configurationFiles(tree).join('\n')}\n`);
    for (const name of DEB_SCRIPTS) put(name, maintainerScript(root, `deb-${name}`), 0o755);
    stamp(control, release.epoch_s);
    utimesSync(tree.directory, release.epoch_s, release.epoch_s);
    // One thread: how xz cuts its blocks must not depend on the builder's processors.
    const compression = fast ? ['-Zgzip', '-z1'] : ['-Zxz', '-z6', '--threads-max=1'];
    run(['dpkg-deb', '--root-owner-group', ...compression, '--build', tree.directory, file], {
      env: { SOURCE_DATE_EPOCH: String(release.epoch_s) },
    });
  } finally {
    rmSync(control, { recursive: true });
  }
  return file;
}

function configurationFiles(tree: StagedTree): string[] {
  return tree.files.filter((file) => file.configuration === true).map(({ path }) => path);
}

/** Of every file but the configuration, as dh_md5sums does. */
function checksums(tree: StagedTree): string {
  return tree.files
    .filter((file) => file.configuration !== true)
    .map(({ path }) => {
      const bytes = readFileSync(join(tree.directory, path));
      return `${createHash('md5').update(bytes).digest('hex')}  ${path.slice(1)}\n`;
    })
    .join('');
}
