import { createHash } from 'node:crypto';
import { pieceLength, pieceOffset } from '../../piece/layout.ts';
import { pieceDigest } from '../../piece/piece-list.ts';
import { type Files, readAt } from '../disk/files.ts';

/** Reads these pieces of the open file again; returns those that do not have the digests that were noted when they were written. */
export async function changedPieces(
  files: Files,
  file: {
    readonly fd: number;
    readonly size_bytes: number;
    readonly digests: Uint8Array;
  },
  indexes: readonly number[],
): Promise<readonly number[]> {
  const changed: number[] = [];
  for (const index of indexes) {
    const length = pieceLength(file.size_bytes, index);
    const bytes = await readAt(files, file.fd, length, pieceOffset(index));
    const sha256: Uint8Array = createHash('sha256').update(bytes).digest();
    if (Buffer.compare(sha256, pieceDigest(file, index)) !== 0) changed.push(index);
  }
  return changed;
}
