import {
  chmodSync,
  constants,
  copyFileSync,
  mkdirSync,
  readdirSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';

/** A file of the package: an absolute path on the target host, and where its bytes come from. */
export type StagedFile = {
  readonly path: string;
  readonly mode: 0o644 | 0o755;
  readonly content: string | Buffer | { readonly copy_of: string };
  /** The administrator's once it is installed: kept at upgrades. */
  readonly configuration?: true;
  /** Means something to Debian only. */
  readonly debian_only?: true;
  /** Where the rpm has it, when the distributions differ. */
  readonly rpm_path?: string;
};

/** What both packages are made from. */
export type StagedTree = {
  readonly directory: string;
  /** Sorted by path. */
  readonly files: readonly StagedFile[];
  readonly size_bytes: number;
};

/**
 * Writes the files below `directory`, which must be empty, with their modes and with one time for all: nothing of the builder's clock or mask
 * gets into a package. Owners are set by dpkg-deb and rpmbuild.
 */
export function writeTree(
  directory: string,
  files: readonly StagedFile[],
  epoch_s: number,
): StagedTree {
  const sorted = files.toSorted((a, b) => (a.path < b.path ? -1 : 1));
  let size_bytes = 0;
  for (const { path, mode, content } of sorted) {
    const at = join(directory, path);
    mkdirSync(dirname(at), { recursive: true });
    if (typeof content === 'string' || Buffer.isBuffer(content)) {
      writeFileSync(at, content);
    } else {
      copyFileSync(content.copy_of, at, constants.COPYFILE_FICLONE);
    }
    chmodSync(at, mode);
    size_bytes += statSync(at).size;
  }
  stamp(directory, epoch_s);
  return { directory, files: sorted, size_bytes };
}

/** One time for everything below, and mode 0755 for directories. */
export function stamp(directory: string, epoch_s: number): void {
  for (const entry of readdirSync(directory, { withFileTypes: true })) {
    const at = join(directory, entry.name);
    if (entry.isDirectory()) stamp(at, epoch_s);
    else utimesSync(at, epoch_s, epoch_s);
  }
  chmodSync(directory, 0o755);
  utimesSync(directory, epoch_s, epoch_s);
}
