import * as fs from 'node:fs';
import { join } from 'node:path';
import { DaemonError, errnoOf } from '../../base/errors.ts';
import { fileError } from './file-errors.ts';

/** File in the state directory: one line with the format's number. */
const FORMAT_FILE = 'format';

/**
 * The format of the state directory that this version writes. It is raised only when an older version would misread what is
 * there, and never in the same version that first writes the new form: the version before must be able to come back
 * (read both forms first, write the new one in the next version).
 */
const STATE_FORMAT = 1;

/**
 * Marks the state directory with our format, so that another version can tell. A directory without a mark (from before there were marks) or with
 * an older one is taken over. `failed_precondition` when a newer version has raised it, or when the mark is not a number.
 * Only for the holder of the store's lock.
 */
export function claimStateFormat(state_directory: string, format: number = STATE_FORMAT): void {
  const file = join(state_directory, FORMAT_FILE);
  const found = readFormat(file);
  if (found === format) return;
  if (found !== undefined && !(found < format)) {
    throw new DaemonError(
      'failed_precondition',
      `state directory ${state_directory} has format ${found}, this version of layerswarm knows formats up to ${format}; install the newer version again, or move the directory away (the host then gets a new identity, all images stay)`,
      { path: state_directory, found, known: format },
    );
  }
  const fresh = `${file}.new`;
  try {
    fs.writeFileSync(fresh, `${format}\n`, { mode: 0o600 });
    fs.renameSync(fresh, file);
  } catch (error) {
    // A full disk is no reason to stay away; the next start marks it.
    if (errnoOf(error) !== 'ENOSPC' && errnoOf(error) !== 'EDQUOT') {
      throw fileError(error, 'write', file);
    }
    fs.rmSync(fresh, { force: true });
  }
}

function readFormat(file: string): number | undefined {
  let text: string;
  try {
    // A power cut may leave blocks that were never written: the length is right, the content is zeros.
    text = fs.readFileSync(file, 'utf8').replaceAll('\0', '').trim();
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined;
    throw fileError(error, 'read', file);
  }
  if (/^[1-9]\d{0,5}$/.test(text)) return Number(text);
  // A crash of the machine may leave an empty file behind a rename; there is nothing to learn from it.
  if (text === '') return undefined;
  throw new DaemonError(
    'failed_precondition',
    `${file} does not hold the number of a format; remove it if the directory is this version's own`,
    { path: file },
  );
}
