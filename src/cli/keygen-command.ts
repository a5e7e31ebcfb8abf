import { closeSync, fsyncSync, openSync, renameSync, rmSync, writeSync } from 'node:fs';
import { DaemonError, errnoOf } from '../base/errors.ts';
import type { Output } from './output.ts';

/**
 * `layerswarm keygen`: a fresh cluster key on stdout, or into a file of mode 0600 that appears whole or not at all. An
 * existing file is refused without `force`, because hosts with the old key would be shut out: `already_exists`.
 */
export function runKeygen(
  modules: { readonly output: Output; readonly generateClusterKey: () => string },
  options: { readonly out?: string | undefined; readonly force?: boolean | undefined },
): number {
  const { output } = modules;
  const line = `${modules.generateClusterKey()}\n`;
  if (options.out === undefined) {
    output.out(line);
    return 0;
  }
  try {
    writePrivate(options.out, line, options.force === true);
  } catch (error) {
    throw fileError(error, options.out);
  }
  output.err(`cluster key written to ${options.out}; copy this file to every host of the swarm\n`);
  return 0;
}

function writePrivate(path: string, text: string, force: boolean): void {
  // Without force the name itself is created exclusively; with it the old key stays until the new one is on disk.
  const target = force ? `${path}.${process.pid}.new` : path;
  const fd = openSync(target, 'wx', 0o600);
  try {
    try {
      writeSync(fd, text);
      fsyncSync(fd);
    } finally {
      closeSync(fd);
    }
    if (force) renameSync(target, path);
  } catch (error) {
    rmSync(target, { force: true });
    throw error;
  }
}

function fileError(error: unknown, path: string): unknown {
  const errno = errnoOf(error);
  const facts = { path, errno };
  if (errno === 'EEXIST') {
    return new DaemonError(
      'already_exists',
      `${path} exists; hosts with another key would be shut out. Use --force to replace it`,
      facts,
      { cause: error },
    );
  }
  if (errno === 'EACCES' || errno === 'EPERM' || errno === 'EROFS') {
    return new DaemonError('permission_denied', `no permission to write ${path}`, facts, {
      cause: error,
    });
  }
  if (errno === undefined) return error;
  return new DaemonError('invalid_argument', `cannot write ${path}: ${errno}`, facts, {
    cause: error,
  });
}
