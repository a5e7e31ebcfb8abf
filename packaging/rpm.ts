import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { PackageOrder } from './deb.ts';
import { rpmSpec } from './rpm-spec.ts';
import { run } from './run-program.ts';

/** Builds the rpm from the tree and returns its path. */
export function buildRpm({ root, tree, target, release, out, fast }: PackageOrder): string {
  const work = mkdtempSync(join(tmpdir(), 'layerswarm-rpm-'));
  const name = `layerswarm-${release.version}-${release.revision}.${target.rpm}.rpm`;
  try {
    const spec = join(work, 'layerswarm.spec');
    writeFileSync(spec, rpmSpec({ root, tree, target, release, fast }));
    const definitions = {
      _topdir: work,
      _rpmdir: out,
      _rpmfilename: name,
      // Where the files are is no part of the package: it comes by the environment, not by the spec.
      staged: tree.directory,
    };
    const defines = Object.entries(definitions).flatMap(([key, value]) => [
      '--define',
      `${key} ${value}`,
    ]);
    run(
      [
        'rpmbuild',
        '-bb',
        '--target',
        `${target.rpm}-linux`,
        ...defines,
        '--buildroot',
        join(work, 'root'),
        spec,
      ],
      { env: { SOURCE_DATE_EPOCH: String(release.epoch_s) } },
    );
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
  return join(out, name);
}
