import { z } from 'zod';
import { DaemonError } from '../base/errors.ts';
import { unwireMain } from './containerd-config.ts';
import { type FileEdit, sha256Of } from './file-edit.ts';
import type { FileState, HostFiles } from './host-files.ts';

/** Where setup keeps what teardown needs. */
const STATE_DIRECTORY = '/var/lib/layerswarm';
const SETUP_DIRECTORY = `${STATE_DIRECTORY}/setup`;
const MANIFEST = `${SETUP_DIRECTORY}/manifest.json`;
const FORMAT = 1;
/** Setup touches six kinds of files and a handful of directories. */
const ENTRIES_MAX = 64;

const sha256 = z.string().regex(/^[0-9a-f]{64}$/);
const manifestSchema = z.strictObject({
  format: z.literal(FORMAT),
  /** `applying` and `undoing` are what a crash leaves. */
  stage: z.enum(['applying', 'applied', 'undoing']),
  containerd: z.strictObject({ binary: z.string(), config_file: z.string() }),
  /** Directories that setup made, the outermost first. */
  directories: z.array(z.string().startsWith('/')).max(ENTRIES_MAX),
  files: z
    .array(
      z.strictObject({
        path: z.string().startsWith('/'),
        kind: z.enum([
          'own-config',
          'cluster-key',
          'generated-key',
          'unit-override',
          'drop-in',
          'containerd-config',
        ]),
        existed: z.boolean(),
        mode: z.int().min(0).max(0o7777),
        uid: z.int().min(0),
        gid: z.int().min(0),
        sha256_before: sha256.nullable(),
        sha256_after: sha256.nullable(),
        /** Name of the copy inside of the setup directory. */
        backup: z
          .string()
          .regex(/^[A-Za-z0-9._-]+$/)
          .nullable(),
      }),
    )
    .max(ENTRIES_MAX),
});

/** What setup did to this host, as it stands on disk. */
export type Manifest = z.output<typeof manifestSchema>;
/** One file of it. */
export type ManifestFile = Manifest['files'][number];

/** The record of what setup changed, with copies of the files as they were. Only root may read it. */
export class BackupManifest {
  readonly #files: HostFiles;

  constructor(files: HostFiles) {
    this.#files = files;
  }

  /** The record, or undefined where setup never ran. `data_loss` when it cannot be understood. */
  load(): Manifest | undefined {
    const text = this.#files.text(MANIFEST);
    if (text === undefined) return undefined;
    try {
      return manifestSchema.parse(JSON.parse(text));
    } catch (cause) {
      throw new DaemonError(
        'data_loss',
        `${MANIFEST} is damaged; compare the files beside it with those of containerd by hand, then move it away`,
        { path: MANIFEST },
        { cause },
      );
    }
  }

  /**
   * Records edits and new directories before they are made. A file that an earlier run changed keeps the copy from before that run; one that
   * was edited by somebody since gets a new one, less what is ours in it.
   */
  record(
    previous: Manifest | undefined,
    edits: readonly FileEdit[],
    directories: readonly string[],
    containerd: Manifest['containerd'],
  ): Manifest {
    this.#files.makeDirectory(SETUP_DIRECTORY, 0o700, 0o700);
    const entries = new Map(previous?.files.map((f) => [f.path, f]));
    for (const edit of edits) entries.set(edit.path, this.#entry(entries.get(edit.path), edit));
    const manifest: Manifest = {
      format: FORMAT,
      stage: 'applying',
      containerd,
      directories: [...new Set([...(previous?.directories ?? []), ...directories])],
      files: [...entries.values()],
    };
    this.save(manifest);
    return manifest;
  }

  save(manifest: Manifest): void {
    this.#files.makeDirectory(SETUP_DIRECTORY, 0o700, 0o700);
    this.#files.write(MANIFEST, this.#private(`${JSON.stringify(manifest, null, 2)}\n`));
  }

  /** The file as it was before setup; undefined when it did not exist. `data_loss` when the copy is not the one that was made. */
  original(entry: ManifestFile): FileState | undefined {
    if (!entry.existed || entry.backup === null) return undefined;
    const path = `${SETUP_DIRECTORY}/${entry.backup}`;
    const copy = this.#files.read(path);
    if (copy === undefined || sha256Of(copy) !== entry.sha256_before) {
      throw new DaemonError(
        'data_loss',
        `${path}, the copy of ${entry.path} from before setup, is missing or damaged; undo setup by hand`,
        { path },
      );
    }
    const { mode, uid, gid } = entry;
    return { bytes: copy.bytes, mode, uid, gid };
  }

  /** True when there is anything of ours, be it only what a crash left. */
  exists(): boolean {
    return this.#files.exists(SETUP_DIRECTORY);
  }

  /** Forgets everything, when teardown is through. The record goes first: it must not name copies that are gone. */
  clear(): void {
    this.#files.remove(MANIFEST);
    for (const name of this.#files.list(SETUP_DIRECTORY)) {
      this.#files.remove(`${SETUP_DIRECTORY}/${name}`);
    }
    this.#files.removeEmptyDirectory(SETUP_DIRECTORY);
    this.#files.removeEmptyDirectory(STATE_DIRECTORY);
  }

  #entry(known: ManifestFile | undefined, edit: FileEdit): ManifestFile {
    const { path, kind, before, after } = edit;
    const now = sha256Of(before) ?? null;
    const sha256_after = sha256Of(after) ?? null;
    if (known !== undefined && (now === known.sha256_after || now === known.sha256_before)) {
      return { ...known, sha256_after };
    }
    const base =
      known !== undefined && kind === 'containerd-config' && before !== undefined
        ? { ...before, bytes: Buffer.from(unwireMain(before.bytes.toString('utf8'))) }
        : before;
    const sha256_before = sha256Of(base) ?? null;
    const backup = base === undefined ? null : `${kind}-${(sha256_before ?? '').slice(0, 16)}`;
    if (base !== undefined) {
      this.#files.write(`${SETUP_DIRECTORY}/${backup}`, this.#private(base.bytes));
    }
    const { mode, uid, gid } = base ?? after ?? { mode: 0, uid: 0, gid: 0 };
    return {
      path,
      kind,
      existed: base !== undefined,
      mode,
      uid,
      gid,
      sha256_before,
      sha256_after,
      backup,
    };
  }

  #private(content: string | Buffer): FileState {
    const [uid, gid] = [process.getuid?.() ?? 0, process.getgid?.() ?? 0];
    return { bytes: Buffer.from(content), mode: 0o600, uid, gid };
  }
}
