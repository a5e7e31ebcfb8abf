import * as fs from 'node:fs';
import { join } from 'node:path';
import { MAX_REF_LENGTH } from '../../oci/ingest-ref.ts';
import { fileError } from '../disk/file-errors.ts';
import type { StoreLayout } from '../disk/layout.ts';
import { formatTime, parseTime } from '../disk/timestamps.ts';

/** What an ingest directory of an earlier process, ours or containerd's own, says. */
export type FoundIngest = {
  readonly ref: string;
  readonly directory: string;
  readonly offset_bytes: number;
  readonly total_bytes: number;
  readonly started_ns: bigint;
  readonly updated_ns: bigint;
};

/**
 * Ingest directories exactly as containerd's local store has them: `ref`, `startedat`, `updatedat`, `total` (when known)
 * and `data`. Everything here is synchronous, a few tens of microseconds each: the caller's caller holds containerd's write
 * transaction. Unlike containerd we do not force the timestamps to disk: losing one to a power cut costs a resume, no blob.
 */
export function createIngest(
  directory: string,
  ingest: { ref: string; total_bytes: number; now_ns: bigint },
): void {
  try {
    fs.mkdirSync(directory, { recursive: true, mode: 0o755 });
    fs.writeFileSync(join(directory, 'ref'), ingest.ref);
    fs.writeFileSync(join(directory, 'startedat'), formatTime(ingest.now_ns));
    fs.writeFileSync(join(directory, 'updatedat'), formatTime(ingest.now_ns));
    writeTotal(directory, ingest.total_bytes);
  } catch (error) {
    throw fileError(error, 'write', directory);
  }
}

/** Records the total that a writer has named. */
export function writeTotal(directory: string, total_bytes: number): void {
  if (total_bytes > 0) fs.writeFileSync(join(directory, 'total'), String(total_bytes));
  else fs.rmSync(join(directory, 'total'), { force: true });
}

/** The time of the last write, when a writer leaves. */
export function writeUpdated(directory: string, updated_ns: bigint): void {
  const path = join(directory, 'updatedat');
  fs.writeFileSync(`${path}.tmp`, formatTime(updated_ns));
  fs.renameSync(`${path}.tmp`, path);
}

/** Opens `data` for reading and writing; makes it when it is missing. */
export function openData(directory: string): number {
  const path = join(directory, 'data');
  try {
    return fs.openSync(path, fs.constants.O_RDWR | fs.constants.O_CREAT, 0o666);
  } catch (error) {
    throw fileError(error, 'write', path);
  }
}

/** All ingests on disk, sorted by directory. Directories whose name is not the hash of their ref are passed over. */
export function findIngests(layout: StoreLayout): FoundIngest[] {
  return fs
    .readdirSync(layout.ingests)
    .sort()
    .flatMap((name) => {
      const found = readIngest(join(layout.ingests, name));
      return found !== undefined && layout.ingest(found.ref) === found.directory ? [found] : [];
    });
}

function readIngest(directory: string): FoundIngest | undefined {
  const ref = readText(join(directory, 'ref'));
  if (ref === undefined || ref === '' || ref.length > MAX_REF_LENGTH) return undefined;
  const data = fs.statSync(join(directory, 'data'), { bigint: true, throwIfNoEntry: false });
  const changed_ns = data?.mtimeNs ?? 0n;
  const started_ns = parseTime(readText(join(directory, 'startedat')) ?? '') ?? changed_ns;
  const updated_ns = parseTime(readText(join(directory, 'updatedat')) ?? '') ?? started_ns;
  const total = Number(readText(join(directory, 'total')) ?? '0');
  return {
    ref,
    directory,
    offset_bytes: Number(data?.size ?? 0n),
    total_bytes: Number.isSafeInteger(total) && total > 0 ? total : 0,
    started_ns,
    updated_ns: changed_ns > updated_ns ? changed_ns : updated_ns,
  };
}

function readText(path: string): string | undefined {
  try {
    return fs.readFileSync(path, 'utf8');
  } catch {
    // Missing, or a directory of something else: not an ingest of ours to read.
    return undefined;
  }
}
