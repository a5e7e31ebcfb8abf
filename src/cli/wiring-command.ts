import { DaemonError } from '../base/errors.ts';
import { unifiedDiff } from '../host/file-diff.ts';
import { actionOf, type FileEdit, isSecret } from '../host/file-edit.ts';
import type { FileState } from '../host/host-files.ts';
import type { WiringModules } from '../host/wiring-host.ts';
import type { Output } from './output.ts';

/** What `setup` and `teardown` need of the world; main.ts gives the real one. */
export type WiringCommandModules = {
  readonly output: Output;
  /** The host below `root` ('' = this host itself). */
  readonly wiring: (root: string) => Promise<WiringModules>;
  /** Asks a question on the terminal; undefined where there is nobody to answer. */
  readonly confirm: ((question: string, signal: AbortSignal) => Promise<boolean>) | undefined;
  /** True for root, who may change a host. */
  readonly is_root: boolean;
  readonly interrupted: () => AbortSignal;
};

/** The options both commands have. */
export type WiringCommandOptions = {
  readonly config: string;
  readonly containerdConfig?: string;
  readonly dryRun?: boolean;
  readonly restartContainerd?: boolean;
  readonly json?: boolean;
  readonly yes?: boolean;
  readonly root?: string;
};

/** The one object of `--json`. */
export type WiringReport = {
  readonly command: 'setup' | 'teardown';
  readonly outcome: 'nothing_to_do' | 'dry_run' | 'done' | 'managed';
  readonly containerd: { readonly version: string; readonly config_file: string } | null;
  readonly actions: readonly string[];
  readonly files: readonly {
    readonly path: string;
    readonly action: 'create' | 'change' | 'remove';
    readonly why: string;
  }[];
  readonly warnings: readonly string[];
  readonly commands: readonly string[];
};

/** One file of a plan for `--json`. */
export function fileReport(edit: FileEdit): WiringReport['files'][number] {
  return { path: edit.path, action: actionOf(edit), why: edit.why };
}

/** A file's change as a person wants to see it before it is made. Secrets are named, not shown. */
export function renderEdit(edit: FileEdit): string {
  const { path, before, after, why } = edit;
  if (isSecret(edit)) return `${actionOf(edit)} ${path}: ${why}; its content is not shown\n`;
  const text = (file: FileState | undefined) => file?.bytes.toString('utf8');
  return `${actionOf(edit)} ${path}: ${why}\n${unifiedDiff(path, text(before), text(after))}`;
}

/** Refuses early what would fail half way. `permission_denied`. */
export function requireRoot(modules: WiringCommandModules, options: WiringCommandOptions): void {
  if (modules.is_root || options.dryRun === true || options.root !== undefined) return;
  throw new DaemonError(
    'permission_denied',
    'this changes files of root; run it as root, or with --dry-run to see what it would do',
  );
}

/**
 * True when it may go on: `--yes`, or the person at the terminal says so. Without either `failed_precondition`: a
 * script that means it says `--yes`.
 */
export async function agreed(
  modules: Pick<WiringCommandModules, 'confirm'>,
  options: Pick<WiringCommandOptions, 'yes' | 'json'>,
  question: string,
  signal: AbortSignal,
): Promise<boolean> {
  if (options.yes === true) return true;
  if (modules.confirm === undefined || options.json === true) {
    throw new DaemonError(
      'failed_precondition',
      'nothing was changed: there is nobody to ask. Run it with --yes, or with --dry-run to see what it would do',
    );
  }
  return modules.confirm(`${question} [y/N] `, signal);
}

/** Sentences with a mark before each. */
export function bullets(mark: string, lines: readonly string[]): string {
  return lines.map((line) => `${mark}${line}\n`).join('');
}
