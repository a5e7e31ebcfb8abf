import { DaemonError } from '../base/errors.ts';
import {
  BUILTIN_CONTENT,
  CONF_D,
  DROP_IN,
  IMPORTS_GLOB,
  MARK,
  unwireMain,
} from './containerd-config.ts';
import type { DumpFacts } from './config-dump.ts';
import { type FileEdit, isUnchanged, sha256Of } from './file-edit.ts';
import type { FileState } from './host-files.ts';
import type { ManifestFile } from './backup-manifest.ts';

/** One file that setup touched: as recorded, as it was, and as it is now. */
type TouchedFile = {
  readonly entry: ManifestFile;
  readonly original: FileState | undefined;
  readonly now: FileState | undefined;
};

/** What a teardown is planned from. */
export type TeardownFacts = {
  readonly config_file: string;
  readonly touched: readonly TouchedFile[];
  readonly main: FileState | undefined;
  readonly drop_in: FileState | undefined;
  /** Other files in the drop-in directory: they may count only since setup. */
  readonly other_drop_ins: readonly string[];
};

export type TeardownPlan = {
  readonly edits: readonly FileEdit[];
  readonly notes: readonly string[];
};

/**
 * The way back. A file that is still as setup left it becomes what it was, byte for byte; one that was edited since loses
 * only what is ours. Setup's record may be missing: then the drop-in and the import that carry our name go.
 */
export function planTeardown(facts: TeardownFacts): TeardownPlan {
  const notes: string[] = [];
  const edits: FileEdit[] = [];
  const known = new Set(facts.touched.map((t) => t.entry.path));
  for (const touched of facts.touched) edits.push(...undo(touched, facts, notes));
  if (!known.has(DROP_IN) && facts.drop_in !== undefined) {
    edits.push(edit('drop-in', DROP_IN, facts.drop_in, undefined, 'made by an earlier setup'));
  }
  if (!known.has(facts.config_file) && facts.main !== undefined && facts.drop_in !== undefined) {
    const text = facts.main.bytes.toString('utf8');
    if (text.includes(MARK)) edits.push(...unwired(facts.config_file, facts.main, facts, notes));
  }
  return { edits: edits.filter((e) => !isUnchanged(e)), notes };
}

/** Refuses a configuration that would leave containerd without any content store. `failed_precondition`. */
export function requireBuiltin(facts: DumpFacts, disablers: readonly string[]): void {
  const [proxy] = facts.content_proxies;
  if (!facts.builtin_disabled && proxy !== undefined) {
    throw new DaemonError(
      'failed_precondition',
      `containerd would have two content stores, its own and the proxy plugin "${proxy.name}" at ${proxy.address}; remove that from its configuration and run this again`,
      { plugin: proxy.name },
    );
  }
  if (!facts.builtin_disabled) return;
  throw new DaemonError(
    'failed_precondition',
    `${disablers.join(', ') || 'another file'} disables ${BUILTIN_CONTENT}, too: without layerswarm containerd would have no content store. Remove that entry from disabled_plugins there (and a proxy plugin for content, if it was written by hand), then run this again`,
    { files: disablers.join(' ') },
  );
}

function undo(touched: TouchedFile, facts: TeardownFacts, notes: string[]): readonly FileEdit[] {
  const { entry, original, now } = touched;
  const { path, kind } = entry;
  const sha = sha256Of(now) ?? null;
  if (sha === entry.sha256_before) return [];
  if (kind === 'generated-key') {
    if (now !== undefined)
      notes.push(`${path} stays: setup made this key, and there may be no copy`);
    return [];
  }
  const untouched = sha === entry.sha256_after;
  if (kind === 'containerd-config') {
    if (now === undefined) return [];
    if (facts.other_drop_ins.length > 0 || !untouched) return unwired(path, now, facts, notes);
  }
  if (untouched) return [edit(kind, path, now, original, 'as it was before setup')];
  if (kind === 'drop-in') {
    notes.push(`${path} was edited since setup; what it said is in ${path}.edited`);
    return [
      edit(
        kind,
        `${path}.edited`,
        undefined,
        now,
        'the edited drop-in, which containerd does not read',
      ),
      edit(kind, path, now, undefined, 'wires layerswarm'),
    ];
  }
  notes.push(`${path} was edited since setup and stays as it is`);
  return [];
}

/** The main file less our import, or as it is where others need the import by now. */
function unwired(
  path: string,
  now: FileState,
  { other_drop_ins }: TeardownFacts,
  notes: string[],
): readonly FileEdit[] {
  if (other_drop_ins.length > 0) {
    const names = other_drop_ins.map((name) => `${CONF_D}/${name}`).join(', ');
    notes.push(
      `${path} goes on importing ${IMPORTS_GLOB}, because ${names} would not count otherwise`,
    );
    return [];
  }
  notes.push(`${path} was edited since setup: only our entry in imports goes`);
  const text = unwireMain(now.bytes.toString('utf8'));
  return [
    edit('containerd-config', path, now, { ...now, bytes: Buffer.from(text) }, 'our import goes'),
  ];
}

function edit(
  kind: FileEdit['kind'],
  path: string,
  before: FileState | undefined,
  after: FileState | undefined,
  why: string,
): FileEdit {
  return { kind, path, before, after, why };
}
