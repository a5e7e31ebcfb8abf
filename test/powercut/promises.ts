// When containerd promised a blob: the transactions of its database that brought one, found in the log of its disk.
import { knownBlobs } from './bolt-file.ts';
import type { Extent, LoggedDisk } from './logged-disk.ts';
import type { LogEntry } from './write-log.ts';

/** bbolt's first two pages, written in turn, end its transactions. */
const META_PAGES_BYTES = 2 * 4096;

/** What the log tells about containerd's database. */
export interface BlobPromises {
  /**
   * How many entries the log has right after the flush of each transaction that made at least one more blob known. From that
   * instant on the blob has to be there, whatever happens.
   */
  readonly instants: readonly number[];
  /** `<namespace> <digest>` of the blobs known at the end. */
  readonly known: readonly string[];
}

/** Follows the database that lies on `disk` at `database` through the log. */
export function blobPromises(
  disk: Pick<LoggedDisk, 'dataOf'>,
  log: readonly LogEntry[],
  database: readonly Extent[],
): BlobPromises {
  const file = Buffer.alloc(Math.max(...database.map((run) => run.in_file + run.length)));
  const instants: number[] = [];
  let known: readonly string[] = [];
  let ended = false;
  for (const [i, entry] of log.entries()) {
    if (entry.kind === 'write') {
      ended = apply(disk, entry, database, file) || ended;
    } else if (ended) {
      ended = false;
      const before = new Set(known);
      known = knownBlobs(file);
      if (known.some((blob) => !before.has(blob))) instants.push(i + 1);
    }
  }
  return { instants, known };
}

/** Does a write to the file, as far as it concerns it; true when that ends a transaction. */
function apply(
  disk: Pick<LoggedDisk, 'dataOf'>,
  write: LogEntry,
  database: readonly Extent[],
  file: Buffer,
): boolean {
  let ends = false;
  for (const { in_file, on_disk, length } of database) {
    const from = Math.max(write.offset, on_disk);
    const to = Math.min(write.offset + write.length, on_disk + length);
    if (from >= to) continue;
    const at = in_file + from - on_disk;
    disk.dataOf(write).copy(file, at, from - write.offset, to - write.offset);
    ends ||= at < META_PAGES_BYTES;
  }
  return ends;
}
