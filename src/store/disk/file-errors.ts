import { DaemonError, errnoOf } from '../../base/errors.ts';

const NO_ROOM = new Set(['ENOSPC', 'EDQUOT', 'EFBIG', 'EMFILE', 'ENFILE']);
const REFUSED = new Set(['EACCES', 'EPERM', 'EROFS']);

/**
 * A failed file operation as a `DaemonError`: `resource_exhausted` (disk, quota, handles; a write that ends in EIO counts
 * here too, because the caller's way out is the same), `permission_denied`, `data_loss` (EIO while reading), else `internal`.
 */
export function fileError(error: unknown, doing: 'write' | 'read', path: string): DaemonError {
  if (error instanceof DaemonError) return error;
  const errno = errnoOf(error);
  const facts = { path, errno };
  const say = (text: string): string => `cannot ${doing} ${path}: ${text} (${errno ?? 'unknown'})`;
  const options = { cause: error };
  if (errno !== undefined && NO_ROOM.has(errno)) {
    return new DaemonError('resource_exhausted', say('no room; free some'), facts, options);
  }
  if (errno !== undefined && REFUSED.has(errno)) {
    return new DaemonError('permission_denied', say('the system refuses'), facts, options);
  }
  if (errno === 'EIO') {
    const code = doing === 'write' ? 'resource_exhausted' : 'data_loss';
    return new DaemonError(code, say('the disk fails; look at the kernel log'), facts, options);
  }
  return new DaemonError('internal', say('unforeseen failure'), facts, options);
}
