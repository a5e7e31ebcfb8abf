import { open } from 'node:fs/promises';
import { DaemonError, errnoOf } from '../../base/errors.ts';

/** Longest secret file that is read, in bytes. */
const MAX_SECRET_BYTES = 4096;

/**
 * Reads a file that holds a secret. `undefined` when it does not exist; `config_invalid` when it cannot be read, is too
 * long, or others than its owner may read it.
 */
export async function readPrivateFile(path: string): Promise<Buffer | undefined> {
  try {
    await using file = await open(path, 'r');
    const stat = await file.stat();
    if ((stat.mode & 0o077) !== 0) {
      throw new DaemonError(
        'config_invalid',
        `The file ${path} may be read by others (mode ${(stat.mode & 0o777).toString(8)}); run: chmod 600 ${path}`,
        { path },
      );
    }
    if (!stat.isFile() || stat.size > MAX_SECRET_BYTES) {
      throw new DaemonError('config_invalid', `${path} is not a key file of layerswarm.`, { path });
    }
    return await file.readFile();
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined;
    if (error instanceof DaemonError) throw error;
    throw new DaemonError(
      'config_invalid',
      `The file ${path} cannot be read (${errnoOf(error) ?? 'unknown error'}); check its owner and directory.`,
      { path },
      { cause: error },
    );
  }
}
