import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import type { Digest } from '../../src/oci/digest.ts';
import { never, type registryBench } from './registry-bench.ts';
import type { Behaviour } from './registry-server.ts';

export const MIB = 1024 * 1024;
/** A blob whose parts are read. */
export const blob = randomBytes(3 * MIB);

type Bench = Awaited<ReturnType<typeof registryBench>>;

/** Reads a part of the blob and compares it. */
export async function readPart(
  { client, origin, server }: Bench,
  offset = MIB,
  length = MIB,
  signal = never,
) {
  const digest = server.addBlob(blob) as Digest;
  const into = new Uint8Array(length);
  const seen: number[] = [];
  const onProgress = (n: number): void => void seen.push(n);
  const wish = { digest, size_bytes: blob.length, offset, into, onProgress };
  const read = await client.range(origin, wish, { signal });
  assert.equal(Buffer.compare(into, blob.subarray(offset, offset + length)), 0);
  assert.equal(seen.at(-1), length);
  assert.deepEqual(
    seen,
    seen.toSorted((a, b) => a - b),
  );
  return read;
}

/** A behaviour for blobs alone. */
export const ofBlobs =
  (act: Behaviour): Behaviour =>
  (asked, response) =>
    asked.url.includes('/blobs/') && act(asked, response);
