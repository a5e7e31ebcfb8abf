import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join, posix } from 'node:path';
import { DaemonError } from '../base/errors.ts';
import type { ContainerdIdentity } from './containerd-install.ts';
import {
  CONF_D,
  type ContainerdTable,
  mapImports,
  parseContainerd,
  stringList,
} from './containerd-config.ts';
import type { HostFiles } from './host-files.ts';
import type { RunProgram } from './run-program.ts';

/** `config dump` takes a second on a slow machine. */
const DUMP_DEADLINE_MS = 30_000;

type Modules = { readonly files: HostFiles; readonly run: RunProgram };

/** A configuration that is to be tried: the main file, and drop-ins that differ from what lies on disk. */
export type Candidate = {
  readonly main: string | undefined;
  /** By path; undefined = as if it were not there. */
  readonly drop_ins: Readonly<Record<string, string | undefined>>;
};

/**
 * What containerd makes of a configuration, by its own `config dump`. Works on copies in a directory of its own: nothing on
 * the host changes. `config_invalid` with containerd's words when it refuses.
 */
export async function dumpCandidate(
  { files, run }: Modules,
  containerd: ContainerdIdentity,
  candidate: Candidate,
  signal: AbortSignal,
): Promise<ContainerdTable> {
  const scratch = mkdtempSync(join(tmpdir(), 'layerswarm-setup-'));
  try {
    const main = join(scratch, 'config.toml');
    copyDropIns(files, join(scratch, 'conf.d'), candidate);
    const text = candidate.main ?? `version = ${containerd.major === 1 ? 2 : 3}\n`;
    const map = (entry: string) => importOnCopy(files, containerd, entry, join(scratch, 'conf.d'));
    writeFileSync(main, mapImports(text, map), { mode: 0o600 });
    const argv = [files.at(containerd.binary), '--config', main, 'config', 'dump'];
    const dump = await run(argv, { signal, deadline_ms: DUMP_DEADLINE_MS });
    if (dump.code !== 0) {
      const told = dump.stderr.trim().split('\n').at(-1) ?? '';
      throw new DaemonError(
        'config_invalid',
        `containerd does not accept ${containerd.config_file}: ${told.replaceAll(main, containerd.config_file)}`,
        { file: containerd.config_file },
      );
    }
    return parseContainerd(dump.stdout, `the output of ${containerd.binary} config dump`);
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

/** The files among the main one and its drop-ins for whose content `holds` is true, for messages. */
export function filesWhere(
  files: HostFiles,
  config_file: string,
  candidate: Candidate,
  holds: (table: ContainerdTable) => boolean,
): readonly string[] {
  const texts = new Map([[config_file, candidate.main], ...dropIns(files, candidate)]);
  const main = candidate.main === undefined ? {} : parseContainerd(candidate.main, config_file);
  for (const entry of stringList(main, 'imports')) {
    const path = posix.resolve(posix.dirname(config_file), entry);
    if (!path.includes('*') && !texts.has(path)) texts.set(path, files.text(path));
  }
  return [...texts].flatMap(([path, text]) => {
    if (text === undefined) return [];
    try {
      return holds(parseContainerd(text, path)) ? [path] : [];
    } catch {
      // Only a hint for a message: a drop-in that is no TOML is containerd's to refuse.
      return [];
    }
  });
}

/** Drop-ins as they would be: those on disk, with the candidate's on top. */
function dropIns(files: HostFiles, { drop_ins }: Candidate): Map<string, string | undefined> {
  const found = new Map<string, string | undefined>();
  for (const name of files.list(CONF_D)) {
    if (name.endsWith('.toml')) found.set(`${CONF_D}/${name}`, files.text(`${CONF_D}/${name}`));
  }
  for (const [path, text] of Object.entries(drop_ins)) found.set(path, text);
  return found;
}

function copyDropIns(files: HostFiles, directory: string, candidate: Candidate): void {
  mkdirSync(directory, { mode: 0o700 });
  for (const [path, text] of dropIns(files, candidate)) {
    if (text !== undefined) writeFileSync(join(directory, basename(path)), text, { mode: 0o600 });
  }
}

/** An import as the daemon would resolve it; 1.6 takes relative globs from its working directory, which is /. */
function importOnCopy(
  files: HostFiles,
  { config_file, major, minor }: ContainerdIdentity,
  entry: string,
  conf_d: string,
): string {
  const from_root = major === 1 && minor === 6 && entry.includes('*');
  const path = posix.resolve(from_root ? '/' : posix.dirname(config_file), entry);
  return dirname(path) === CONF_D ? join(conf_d, basename(path)) : files.at(path);
}
