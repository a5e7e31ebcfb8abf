import * as fs from 'node:fs';
import { join } from 'node:path';
import { type Digest, isDigest } from '../../oci/digest.ts';
import type { Logger } from '../../ops/logger.ts';
import { breathe } from '../disk/files.ts';
import type { StoreLayout } from '../disk/layout.ts';
import { type BlobIndex, NO_LABELS } from './blob-index.ts';
import type { Labels } from './labels.ts';

/** Files looked at without letting anything else run: some 3 ms. */
const SLICE = 512;

/**
 * Fills the index from what lies under `blobs/` (owned, whoever put it there) and in the cache folder, sorted by name, by `stat` alone.
 * Whatever is not a file with the name of a known digest is passed over. As in containerd, mtime is the creation and atime the update time.
 */
export async function scanBlobs(
  modules: { layout: StoreLayout; index: BlobIndex; logger: Logger },
  signal: AbortSignal,
): Promise<void> {
  const { layout, index, logger } = modules;
  const labelled = new Set(layout.labels.digests());
  for await (const { digest, file } of filesBelow(layout.blobs, signal)) {
    index.add({
      digest,
      size_bytes: Number(file.size),
      created_ns: file.mtimeNs,
      updated_ns: file.atimeNs > file.mtimeNs ? file.atimeNs : file.mtimeNs,
      labels: labelled.delete(digest) ? readLabels(layout, digest, logger) : NO_LABELS,
      state: 'owned',
    });
  }
  for (const digest of labelled) layout.labels.remove(digest);
  const cached: { digest: Digest; file: fs.BigIntStats }[] = [];
  for await (const found of filesBelow(layout.cache, signal)) cached.push(found);
  // Its rename into the cache changed the inode last: the oldest are the first to be evicted.
  cached.sort((a, b) => Number(a.file.ctimeNs - b.file.ctimeNs));
  for (const { digest, file } of cached) {
    if (index.get(digest) !== undefined) {
      fs.rmSync(layout.cached(digest), { force: true });
      continue;
    }
    index.add({
      digest,
      size_bytes: Number(file.size),
      created_ns: file.mtimeNs,
      updated_ns: file.mtimeNs,
      labels: NO_LABELS,
      state: 'cache',
    });
  }
}

async function* filesBelow(
  root: string,
  signal: AbortSignal,
): AsyncIterable<{ digest: Digest; file: fs.BigIntStats }> {
  let looked = 0;
  for (const algorithm of fs.readdirSync(root).sort()) {
    const directory = join(root, algorithm);
    if (fs.statSync(directory, { throwIfNoEntry: false })?.isDirectory() !== true) continue;
    for (const hex of fs.readdirSync(directory).sort()) {
      const digest = `${algorithm}:${hex}`;
      if (!isDigest(digest)) continue;
      looked += 1;
      if (looked % SLICE === 0) {
        await breathe();
        signal.throwIfAborted();
      }
      const path = join(directory, hex);
      const file = fs.statSync(path, { bigint: true, throwIfNoEntry: false });
      if (file?.isFile() === true) yield { digest, file };
    }
  }
}

function readLabels(layout: StoreLayout, digest: Digest, logger: Logger): Labels {
  try {
    const labels: unknown = JSON.parse(layout.labels.read(digest)?.toString() ?? '{}');
    if (typeof labels === 'object' && labels !== null && !Array.isArray(labels)) {
      return Object.fromEntries(
        Object.entries(labels).filter(
          (pair): pair is [string, string] => typeof pair[1] === 'string',
        ),
      );
    }
  } catch (err) {
    logger.warn({ err, digest }, 'labels of a blob are unreadable and dropped');
  }
  return NO_LABELS;
}
