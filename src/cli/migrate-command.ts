import { DaemonError } from '../base/errors.ts';
import { MIGRATIONS, type Migration } from '../config/migrations.ts';
import { migrateConfig } from '../host/config-migration.ts';
import { unifiedDiff } from '../host/file-diff.ts';
import type { FileState, HostFiles } from '../host/host-files.ts';
import type { Output } from './output.ts';

/** Copies of the file from before its migrations; more means that something else is wrong. */
const COPIES_MAX = 100;

/**
 * `layerswarm config migrate`: rewrites keys that a later version renamed or removed, shows the diff, and keeps the old file beside the new
 * one. Without anything to do it writes nothing. Resolves to the exit code; `config_invalid` when the file cannot be migrated.
 */
export function runMigrate(
  { output, files }: { readonly output: Output; readonly files: HostFiles },
  file: string,
  options: { readonly dry_run: boolean; readonly migrations?: readonly Migration[] },
): number {
  const state = files.read(file);
  if (state === undefined) {
    output.out(`${file} does not exist; nothing to do\n`);
    return 0;
  }
  const before = state.bytes.toString('utf8');
  const { text, changes } = migrateConfig(before, file, options.migrations ?? MIGRATIONS);
  if (changes.length === 0) {
    output.out(`${file}: nothing to do\n`);
    return 0;
  }
  output.out(`${changes.join('\n')}\n\n${unifiedDiff(file, before, text)}`);
  if (options.dry_run) {
    output.out('nothing was written (--dry-run)\n');
    return 0;
  }
  const copy = keepCopy(files, file, state);
  files.write(file, { ...state, bytes: Buffer.from(text) });
  output.out(`${file} rewritten; the old file is ${copy}\n`);
  return 0;
}

function keepCopy(files: HostFiles, file: string, state: FileState): string {
  for (let n = 1; n <= COPIES_MAX; n++) {
    const copy = `${file}.before-migration-${n}`;
    if (files.exists(copy)) continue;
    files.write(copy, state);
    return copy;
  }
  throw new DaemonError(
    'failed_precondition',
    `${file} has ${COPIES_MAX} copies from earlier migrations beside it; remove some`,
    { file },
  );
}
