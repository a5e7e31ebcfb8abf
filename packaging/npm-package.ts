import { createHash } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
} from 'node:fs';
import { join } from 'node:path';
import type { PinnedPackage } from './architecture.ts';
import { run } from './run-program.ts';

/**
 * The unpacked directory of a pinned package: from node_modules when npm installed just that version (npm compared the lock
 * file's integrity, and that must be ours), else from the registry into `cache`, where it stays. Fails when the bytes are not the pinned ones.
 */
export function npmPackage(root: string, cache: string, pinned: PinnedPackage): string {
  const installed = join(root, 'node_modules', pinned.name);
  if (isInstalled(root, installed, pinned)) return installed;
  const directory = join(cache, `${pinned.name.replace('/', '+')}-${pinned.version}`);
  if (existsSync(directory)) return directory;
  mkdirSync(cache, { recursive: true });
  const work = mkdtempSync(join(cache, 'fetch-'));
  try {
    const id = `${pinned.name}@${pinned.version}`;
    run(['npm', 'pack', '--silent', '--pack-destination', work, id], { cwd: root });
    const file = readdirSync(work).find((name) => name.endsWith('.tgz'));
    if (file === undefined) throw new Error(`npm pack ${id} wrote no tarball`);
    const tarball = join(work, file);
    const found = `sha512-${createHash('sha512').update(readFileSync(tarball)).digest('base64')}`;
    if (found !== pinned.integrity) {
      throw new Error(
        `${id} is not the pinned one: expected ${pinned.integrity}, the registry gave ${found}`,
      );
    }
    run(['tar', '-xzf', tarball, '-C', work, '--no-same-owner']);
    const top = readdirSync(work, { withFileTypes: true }).find((entry) => entry.isDirectory());
    if (top === undefined) throw new Error(`${id} has an empty tarball`);
    renameSync(join(work, top.name), directory);
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
  return directory;
}

function isInstalled(root: string, directory: string, pinned: PinnedPackage): boolean {
  if (!existsSync(join(directory, 'package.json'))) return false;
  const { version } = JSON.parse(readFileSync(join(directory, 'package.json'), 'utf8')) as {
    version: string;
  };
  const lock = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8')) as {
    packages: Readonly<Record<string, { integrity?: string } | undefined>>;
  };
  const integrity = lock.packages[`node_modules/${pinned.name}`]?.integrity;
  return version === pinned.version && integrity === pinned.integrity;
}
