import { fileError } from '../disk/file-errors.ts';
import { type Files, readAt, writeAt } from '../disk/files.ts';
import type { StoreLayout } from '../disk/layout.ts';
import type { GivenPrefix } from '../staging/staged-blob.ts';

const COPY_BYTES = 1024 * 1024;

/**
 * A file of its own with the given prefix: shared blocks where the file system can (the caller cuts off the surplus), otherwise a copy. The
 * caller owns descriptor and path. `resource_exhausted`, with nothing left behind.
 */
export async function copyPrefix(
  modules: { files: Files; layout: StoreLayout },
  given: Pick<GivenPrefix, 'fd' | 'path' | 'bytes'>,
): Promise<{ readonly fd: number; readonly path: string }> {
  const { files, layout } = modules;
  const path = layout.fresh('prefix');
  let fd: number | undefined;
  try {
    const isCloned = await cloned(files, given.path, path);
    fd = await files.open(path, isCloned ? 'r+' : 'wx+', 0o666);
    if (!isCloned) await copied(files, given, fd);
    return { fd, path };
  } catch (error) {
    if (fd !== undefined) await files.close(fd);
    await files.remove(path);
    throw fileError(error, 'write', path);
  }
}

/** As `copyPrefix`, for `use` to take over; what it does not take is removed again, and its failure passed on. */
export async function useCopy(
  modules: { files: Files; layout: StoreLayout },
  given: Pick<GivenPrefix, 'fd' | 'path' | 'bytes'>,
  use: (copy: { readonly fd: number; readonly path: string }) => void,
): Promise<void> {
  const copy = await copyPrefix(modules, given);
  try {
    use(copy);
  } catch (error) {
    await modules.files.close(copy.fd);
    await modules.files.remove(copy.path);
    throw error;
  }
}

async function cloned(files: Files, from: string, to: string): Promise<boolean> {
  try {
    await files.clone(from, to);
    return true;
  } catch {
    // ext4 and tmpfs cannot; every other reason shows again in the copy.
    await files.remove(to);
    return false;
  }
}

async function copied(
  files: Files,
  given: Pick<GivenPrefix, 'fd' | 'bytes'>,
  fd: number,
): Promise<void> {
  for (let at = 0; at < given.bytes; at += COPY_BYTES) {
    const length = Math.min(COPY_BYTES, given.bytes - at);
    await writeAt(files, fd, await readAt(files, given.fd, length, at), at);
  }
}
