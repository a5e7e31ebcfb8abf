import * as fs from 'node:fs';
import { join } from 'node:path';
import { MAX_REF_LENGTH } from '../../oci/ingest-ref.ts';
import { fileError } from '../disk/file-errors.ts';
import type { Files } from '../disk/files.ts';
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
 * Makes an ingest directory exactly as containerd's local store has it: `ref`, `startedat`, `updatedat`, `total` (when known); `data`
 * comes with the first open. Unlike containerd we do not force these to disk: losing one to a power cut costs a resume, no blob.
 */
export async function makeIngest(
  files: Files,
  directory: string,
  ingest: { ref: string; total_bytes: number; started_ns: bigint },
): Promise<void> {
  try {
    // A leftover that the scan did not accept must not be taken for our bytes.
    await files.remove(directory);
    await files.mkdir(directory, 0o755);
    const started = formatTime(ingest.started_ns);
    await files.writeFile(join(directory, 'startedat'), started);
    await files.writeFile(join(directory, 'updatedat'), started);
    await writeTotal(files, directory, ingest.total_bytes);
    // Last: a directory without it is none.
    await files.writeFile(join(directory, 'ref'), ingest.ref);
  } catch (error) {
    throw fileError(error, 'write', directory);
  }
}

/** Records the total that a writer has named. */
export async function writeTotal(
  files: Files,
  directory: string,
  total_bytes: number,
): Promise<void> {
  const path = join(directory, 'total');
  if (total_bytes > 0) await files.writeFile(path, String(total_bytes));
  else await files.remove(path);
}

/** The time of the last write, when a writer leaves. */
export async function writeUpdated(
  files: Files,
  directory: string,
  updated_ns: bigint,
): Promise<void> {
  const path = join(directory, 'updatedat');
  await files.writeFile(`${path}.tmp`, formatTime(updated_ns));
  await files.rename(`${path}.tmp`, path);
}

/**
 * All ingests on disk, sorted by directory. Directories whose name is not the hash of their ref are passed over, as not ours; one without a
 * ref (a power cut came between its directory and its content) is of use to nobody, and its path goes to `onBroken`.
 */
export function findIngests(layout: StoreLayout, onBroken: (path: string) => void): FoundIngest[] {
  const found: FoundIngest[] = [];
  for (const name of fs.readdirSync(layout.ingests).sort()) {
    const directory = join(layout.ingests, name);
    if (!/^[0-9a-f]{64}$/.test(name)) continue;
    const ref = readText(join(directory, 'ref'));
    if (ref === undefined || ref === '') onBroken(directory);
    else if (layout.ingest(ref) === directory) found.push(readIngest(directory, ref));
  }
  return found.filter(({ ref }) => ref.length <= MAX_REF_LENGTH);
}

function readIngest(directory: string, ref: string): FoundIngest {
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
