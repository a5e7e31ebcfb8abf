import type { Digest } from '../../oci/digest.ts';
import { pieceLength, pieceOffset } from '../../piece/layout.ts';
import { type Files, readAt, writeAt } from '../disk/files.ts';

/** Pieces carried over at most: what was in flight, and little more. */
export const CARRIED_MAX = 32;

/** Pieces of a blob in a file of their own, open at `path`. */
export type CarriedPieces = {
  readonly fd: number;
  readonly path: string;
  readonly indexes: readonly number[];
};

/**
 * Copies pieces of the open file `fd` into a new file at `path`, each to its place; the caller owns it. Undefined when there are none to copy, or
 * when there is no room or no descriptor for them: they can be fetched again, and nothing is left behind then.
 */
export async function carryOver(
  files: Files,
  from: { readonly digest: Digest; readonly size_bytes: number; readonly fd: number },
  to: { readonly path: string; readonly indexes: readonly number[] },
): Promise<CarriedPieces | undefined> {
  const { path, indexes } = to;
  if (indexes.length === 0) return undefined;
  let fd: number | undefined;
  try {
    fd = await files.open(path, 'wx+', 0o666);
    for (const index of indexes) {
      const at = pieceOffset(index);
      const bytes = await readAt(files, from.fd, pieceLength(from.size_bytes, index), at);
      await writeAt(files, fd, bytes, at);
    }
    return { fd, path, indexes };
  } catch {
    if (fd !== undefined) await dropCarried(files, { fd, path, indexes });
    return undefined;
  }
}

/** Closes and removes the file. */
export async function dropCarried(files: Files, carried: CarriedPieces): Promise<void> {
  await files.close(carried.fd);
  await files.remove(carried.path);
}
