import * as fs from 'node:fs';
import { posix } from 'node:path';
import { DaemonError, errnoOf } from '../base/errors.ts';

/** Largest file that is read, in bytes: configuration, keys and manifests are all small. */
const FILE_MAX_BYTES = 1024 * 1024;
/** Longest chain of symbolic links that is followed; the kernel stops at 40. */
const LINKS_MAX = 16;

/** A file as it is: its bytes and what `chmod` and `chown` would say. */
export type FileState = {
  readonly bytes: Buffer;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
};

/**
 * The files of this host by their absolute paths, or, for tests, of a tree that stands in for it. Writing is atomic: a
 * reader sees the old file or the new one, also after a crash. Failures are `permission_denied`, `resource_exhausted`
 * or `failed_precondition`, and name the file.
 */
export class HostFiles {
  readonly root: string;

  /** `root` is '' for the host itself. */
  constructor(root = '') {
    this.root = root.replace(/\/+$/, '');
  }

  /** Where a path of the host really lies. */
  at(path: string): string {
    return this.root + path;
  }

  /** The file behind a path, its symbolic links followed; undefined when there is none. */
  read(path: string): FileState | undefined {
    return guarded('read', path, () => {
      const real = this.at(this.target(path));
      const stat = fs.statSync(real, { throwIfNoEntry: false });
      if (stat === undefined) return undefined;
      if (!stat.isFile()) {
        throw new DaemonError('failed_precondition', `${path} is not a file`, { path });
      }
      if (stat.size > FILE_MAX_BYTES) {
        throw new DaemonError('failed_precondition', `${path} is larger than 1 MiB`, { path });
      }
      const { uid, gid } = stat;
      return { bytes: fs.readFileSync(real), mode: stat.mode & 0o7777, uid, gid };
    });
  }

  /** Its text, or undefined when it is missing. */
  text(path: string): string | undefined {
    return this.read(path)?.bytes.toString('utf8');
  }

  exists(path: string): boolean {
    return fs.existsSync(this.at(this.target(path)));
  }

  /** Names in a directory, sorted; empty when it is missing or cannot be read. */
  list(path: string): readonly string[] {
    try {
      return fs.readdirSync(this.at(this.target(path))).sort();
    } catch {
      return [];
    }
  }

  /** What a symbolic link says, or undefined when it is none. */
  link(path: string): string | undefined {
    try {
      return fs.readlinkSync(this.at(path));
    } catch {
      return undefined;
    }
  }

  /** The path that the symbolic links at the end of `path` lead to; the file need not exist. */
  target(path: string): string {
    let at = path;
    for (let i = 0; i < LINKS_MAX; i += 1) {
      const next = this.link(at);
      if (next === undefined) return at;
      at = posix.resolve(posix.dirname(at), next);
    }
    throw new DaemonError('failed_precondition', `${path} leads through too many symbolic links`, {
      path,
    });
  }

  /** Writes a file whole, through symbolic links, and makes its directory when it is missing. */
  write(path: string, file: FileState): void {
    guarded('write', path, () => {
      const real = this.at(this.target(path));
      const directory = posix.dirname(real);
      fs.mkdirSync(directory, { recursive: true, mode: 0o755 });
      const fresh = posix.join(directory, `.${posix.basename(real)}.layerswarm-${process.pid}`);
      try {
        const fd = fs.openSync(fresh, 'wx', 0o600);
        try {
          fs.writeSync(fd, file.bytes);
          fs.fchownSync(fd, file.uid, file.gid);
          fs.fchmodSync(fd, file.mode);
          fs.fsyncSync(fd);
        } finally {
          fs.closeSync(fd);
        }
        fs.renameSync(fresh, real);
      } finally {
        fs.rmSync(fresh, { force: true });
      }
      syncDirectory(directory);
    });
  }

  /** Removes a file (or what its symbolic links lead to); one that is gone is no error. */
  remove(path: string): void {
    guarded('remove', path, () => {
      const real = this.at(this.target(path));
      fs.rmSync(real, { force: true });
      if (fs.existsSync(posix.dirname(real))) syncDirectory(posix.dirname(real));
    });
  }

  /** The directories that are missing on the way to a path, itself included, the outermost first. */
  missingDirectories(path: string): readonly string[] {
    const missing: string[] = [];
    for (let at = path; !fs.existsSync(this.at(at)); at = posix.dirname(at)) missing.unshift(at);
    return missing;
  }

  /** Makes a directory and what is missing above it. */
  makeDirectory(path: string, mode: number, parent_mode = 0o755): void {
    guarded('write', path, () => {
      for (const at of this.missingDirectories(path)) {
        fs.mkdirSync(this.at(at), { mode: at === path ? mode : parent_mode });
      }
    });
  }

  /** Removes a directory that is empty; anything else stays. */
  removeEmptyDirectory(path: string): void {
    try {
      fs.rmdirSync(this.at(path));
    } catch {
      // It holds something by now, or is gone: either way it is not ours to remove.
    }
  }
}

function syncDirectory(path: string): void {
  const fd = fs.openSync(path, 'r');
  try {
    fs.fsyncSync(fd);
  } finally {
    fs.closeSync(fd);
  }
}

function guarded<T>(what: string, path: string, act: () => T): T {
  try {
    return act();
  } catch (cause) {
    const errno = errnoOf(cause);
    if (cause instanceof DaemonError || errno === undefined) throw cause;
    const facts = { path, errno };
    if (errno === 'EACCES' || errno === 'EPERM' || errno === 'EROFS') {
      const text = `no permission to ${what} ${path} (${errno}); run this as root`;
      throw new DaemonError('permission_denied', text, facts, { cause });
    }
    const code = errno === 'ENOSPC' || errno === 'EDQUOT' ? 'resource_exhausted' : undefined;
    const text = `cannot ${what} ${path}: ${errno}`;
    throw new DaemonError(code ?? 'failed_precondition', text, facts, { cause });
  }
}
