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
  await eachFileBelow(layout.blobs, signal, (digest, file) => {
    index.add({
      digest,
      size_bytes: file.size,
      created_ns: nanoseconds(file.mtimeMs),
      updated_ns: nanoseconds(Math.max(file.atimeMs, file.mtimeMs)),
      labels: labelled.delete(digest) ? readLabels(layout, digest, logger) : NO_LABELS,
      state: 'owned',
    });
  });
  for (const digest of labelled) layout.labels.remove(digest);
  const cached: { digest: Digest; file: fs.Stats }[] = [];
  await eachFileBelow(layout.cache, signal, (digest, file) => void cached.push({ digest, file }));
  // Its rename into the cache changed the inode last: the oldest are the first to be evicted.
  cached.sort((a, b) => a.file.ctimeMs - b.file.ctimeMs);
  for (const { digest, file } of cached) {
    if (index.get(digest) !== undefined) {
      fs.rmSync(layout.cached(digest), { force: true });
      continue;
    }
    const time_ns = nanoseconds(file.mtimeMs);
    index.add({
      digest,
      size_bytes: file.size,
      created_ns: time_ns,
      updated_ns: time_ns,
      labels: NO_LABELS,
      state: 'cache',
    });
  }
}

/** Plain numbers hold a time of day to a quarter of a microsecond; the exact kind costs three times as much per file. */
function nanoseconds(ms: number): bigint {
  return BigInt(Math.round(ms * 1000)) * 1000n;
}

async function eachFileBelow(
  root: string,
  signal: AbortSignal,
  onFile: (digest: Digest, file: fs.Stats) => void,
): Promise<void> {
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
      const file = fs.statSync(`${directory}/${hex}`, { throwIfNoEntry: false });
      if (file?.isFile() === true) onFile(digest, file);
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
