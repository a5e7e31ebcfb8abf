import { createHash, randomBytes } from 'node:crypto';
import { open, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Digest } from '../../src/oci/digest.ts';

const BLOCK_BYTES = 4 * 1024 * 1024;

/** A file of incompressible bytes. */
export type BlobFile = {
  readonly path: string;
  readonly digest: Digest;
  readonly size_bytes: number;
};

/** Writes a blob that no other run has; it is in the page cache afterwards. */
export async function makeBlob(directory: string, size_bytes: number): Promise<BlobFile> {
  const path = join(directory, `blob-${randomBytes(6).toString('hex')}`);
  const block = randomBytes(BLOCK_BYTES);
  const hash = createHash('sha256');
  await using file = await open(path, 'wx');
  for (let at = 0; at < size_bytes; at += BLOCK_BYTES) {
    // Every block differs, so that no piece of the blob is like another.
    block.writeDoubleLE(at, 0);
    const part = block.subarray(0, Math.min(BLOCK_BYTES, size_bytes - at));
    hash.update(part);
    await file.writeFile(part);
  }
  // Or the kernel would write it back in the middle of a measurement.
  await file.sync();
  return { path, digest: `sha256:${hash.digest('hex')}` as Digest, size_bytes };
}

const SMALL_BYTES = 1000;

/** Writes a blob of a kilobyte without forcing it to the disk: for stores of thousands. */
export async function makeSmallBlob(directory: string): Promise<BlobFile> {
  const bytes = randomBytes(SMALL_BYTES);
  const hex = createHash('sha256').update(bytes).digest('hex');
  const path = join(directory, `small-${hex}`);
  await writeFile(path, bytes, { flag: 'wx' });
  return { path, digest: `sha256:${hex}` as Digest, size_bytes: SMALL_BYTES };
}
