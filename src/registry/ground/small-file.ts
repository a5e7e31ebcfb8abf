import { open } from 'node:fs/promises';
import { DaemonError, errnoOf } from '../../base/errors.ts';

/** Largest configuration, certificate or key file that is read, in bytes. */
const MAX_BYTES = 1024 * 1024;

/**
 * The text of a small file; undefined when there is none. `permission_denied` when it may not be read, `config_invalid` when it is no
 * file or too large. The messages name the file and never what is in it.
 */
export async function readSmallFile(path: string): Promise<string | undefined> {
  try {
    await using file = await open(path, 'r');
    const buffer = Buffer.alloc(MAX_BYTES + 1);
    let size = 0;
    for (;;) {
      const { bytesRead } = await file.read(buffer, size, buffer.length - size);
      size += bytesRead;
      if (bytesRead === 0 || size === buffer.length) break;
    }
    if (size <= MAX_BYTES) return buffer.toString('utf8', 0, size);
  } catch (error) {
    const errno = errnoOf(error);
    if (errno === 'ENOENT' || errno === 'ENOTDIR') return undefined;
    const denied = errno === 'EACCES' || errno === 'EPERM';
    throw new DaemonError(
      denied ? 'permission_denied' : 'config_invalid',
      `${path} cannot be read: ${errno ?? 'unknown'}`,
      { path, errno },
    );
  }
  throw new DaemonError('config_invalid', `${path} is larger than ${MAX_BYTES} bytes`, { path });
}
