import { createHash } from 'node:crypto';
import type { FileState, HostFiles } from './host-files.ts';

/** What a file is to setup: decides how teardown treats one that was edited since. */
export type FileKind =
  | 'own-config'
  | 'cluster-key'
  | 'generated-key'
  | 'unit-override'
  | 'drop-in'
  | 'containerd-config';

/** One file as it is and as it shall be; `undefined` is a file that does not exist. */
export type FileEdit = {
  readonly kind: FileKind;
  readonly path: string;
  readonly before: FileState | undefined;
  readonly after: FileState | undefined;
  /** Half a sentence for a person. */
  readonly why: string;
};

/** True when its bytes must not be shown. */
export function isSecret(edit: FileEdit): boolean {
  return edit.kind === 'cluster-key' || edit.kind === 'generated-key';
}

/** True when it changes what containerd does, so that a restart is due. */
export function concernsContainerd(edit: FileEdit): boolean {
  return edit.kind === 'drop-in' || edit.kind === 'containerd-config';
}

/** The word for what happens to the file. */
export function actionOf(edit: FileEdit): 'create' | 'change' | 'remove' {
  if (edit.before === undefined) return 'create';
  return edit.after === undefined ? 'remove' : 'change';
}

/** True when there is nothing to write. */
export function isUnchanged({ before, after }: FileEdit): boolean {
  if (before === undefined || after === undefined) return before === after;
  const same_owner = before.uid === after.uid && before.gid === after.gid;
  return same_owner && before.mode === after.mode && before.bytes.equals(after.bytes);
}

/** SHA-256 in hex; undefined for a file that does not exist. */
export function sha256Of(file: FileState | undefined): string | undefined {
  return file && createHash('sha256').update(file.bytes).digest('hex');
}

/**
 * Writes all edits in their order. When one fails, those before it are taken back and the failure is thrown. Returns
 * the function that takes all of them back.
 */
export function applyEdits(files: HostFiles, edits: readonly FileEdit[]): () => void {
  const done: FileEdit[] = [];
  const rollback = (): void => {
    for (let edit = done.pop(); edit !== undefined; edit = done.pop()) {
      put(files, edit.path, edit.before);
    }
  };
  try {
    for (const edit of edits) {
      put(files, edit.path, edit.after);
      done.push(edit);
    }
  } catch (error) {
    rollback();
    throw error;
  }
  return rollback;
}

function put(files: HostFiles, path: string, file: FileState | undefined): void {
  if (file === undefined) files.remove(path);
  else files.write(path, file);
}
