import * as fs from 'node:fs';
import { join } from 'node:path';
import { type Digest, isDigest } from '../../oci/digest.ts';
import type { Logger } from '../../ops/logger.ts';
import { type BlobIndex, NO_LABELS } from './blob-index.ts';
import type { CacheMarks } from './cache-marks.ts';
import { breathe } from '../disk/descriptor.ts';
import type { Labels } from './labels.ts';
import type { StoreLayout } from '../disk/layout.ts';

/** Files looked at without letting anything else run: some 3 ms. */
const SLICE = 512;

/**
 * Fills the index from what lies under `blobs/`, sorted by name, by `stat` alone. Whatever is not a file with the name of
 * a known digest is passed over. As in containerd, mtime is the creation and atime the update time.
 */
export async function scanBlobs(
  modules: { layout: StoreLayout; index: BlobIndex; marks: CacheMarks; logger: Logger },
  signal: AbortSignal,
): Promise<void> {
  const { layout, index, marks, logger } = modules;
  const labelled = new Set(layout.labels.digests());
  const marked = marks.recover();
  const cached = new Set(marked);
  let looked = 0;
  for (const digest of digestsBelow(layout.blobs)) {
    looked += 1;
    if (looked % SLICE === 0) {
      await breathe();
      signal.throwIfAborted();
    }
    const file = fs.statSync(layout.blob(digest), { bigint: true, throwIfNoEntry: false });
    if (file?.isFile() !== true) continue;
    index.add({
      digest,
      size_bytes: Number(file.size),
      created_ns: file.mtimeNs,
      updated_ns: file.atimeNs > file.mtimeNs ? file.atimeNs : file.mtimeNs,
      labels: labelled.delete(digest) ? readLabels(layout, digest, logger) : NO_LABELS,
      state: cached.has(digest) ? 'cache' : 'owned',
    });
  }
  // Oldest mark first: the order in which they will be evicted.
  for (const digest of marked) {
    const entry = index.get(digest);
    if (entry === undefined) marks.clear(digest);
    else index.touch(entry);
  }
  for (const digest of labelled) layout.labels.remove(digest);
}

function* digestsBelow(root: string): Iterable<Digest> {
  for (const algorithm of fs.readdirSync(root).sort()) {
    const directory = join(root, algorithm);
    if (fs.statSync(directory, { throwIfNoEntry: false })?.isDirectory() !== true) continue;
    for (const hex of fs.readdirSync(directory).sort()) {
      const digest = `${algorithm}:${hex}`;
      if (isDigest(digest)) yield digest;
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
