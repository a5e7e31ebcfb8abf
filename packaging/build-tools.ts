import type { Target } from './architecture.ts';
import type { Format } from './options.ts';
import { present, run } from './run-program.ts';

/** Installs what packaging needs and this machine lacks. */
export function ensureBuildTools(
  targets: readonly Target[],
  formats: readonly Format[],
  say: (line: string) => void,
): void {
  const needed = new Map(targets.map(({ strip }) => [strip.program, strip.debian_package]));
  if (formats.includes('deb')) {
    needed.set('dpkg-deb', 'dpkg').set('xz', 'xz-utils').set('lintian', 'lintian');
  }
  if (formats.includes('rpm')) needed.set('rpmbuild', 'rpm').set('rpmlint', 'rpmlint');
  ensurePrograms(needed, say);
}

/**
 * Installs the Debian packages of programs that are missing, and says which. Programs are looked for by name, so that a machine that has
 * them by other ways is left alone. Fails with the list when it may not install.
 */
export function ensurePrograms(
  package_of: ReadonlyMap<string, string>,
  say: (line: string) => void,
): void {
  const lacking = [...package_of].filter(([program]) => !present(program)).map(([, name]) => name);
  if (lacking.length === 0) return;
  const list = [...new Set(lacking)].join(' ');
  if (process.getuid?.() !== 0) {
    throw new Error(`this needs ${list}: run as root, or run first: apt-get install ${list}`);
  }
  say(`installing ${list}`);
  const env = { DEBIAN_FRONTEND: 'noninteractive' };
  const install = (): unknown =>
    run(['apt-get', 'install', '-y', '--no-install-recommends', ...list.split(' ')], { env });
  try {
    install();
  } catch {
    // The package lists of a fresh machine may be missing or old.
    run(['apt-get', 'update'], { env });
    install();
  }
}
