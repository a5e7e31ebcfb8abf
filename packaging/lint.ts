import { join } from 'node:path';
import { run } from './run-program.ts';

/**
 * lintian over a deb. Fails with what it says, if it says anything that has no override with a reason in `host/lintian-overrides`.
 */
export function lintDeb(file: string): void {
  const said = run(['lintian', '--no-cfg', '--allow-root', '--tag-display-limit', '0', file], {
    allowed: [0, 1, 2],
  }).trim();
  if (said !== '') throw new Error(`lintian about ${file}:\n${said}`);
}

/** rpmlint over an rpm, likewise; exceptions with their reasons are in `packaging/rpmlint.toml`. */
export function lintRpm(root: string, file: string): void {
  const config = join(root, 'packaging/rpmlint.toml');
  const said = run(['rpmlint', '--config', config, file], { allowed: [0, 64, 66] });
  const found = said.split('\n').filter((line) => /: [EW]: /.test(line));
  if (found.length > 0) throw new Error(`rpmlint about ${file}:\n${found.join('\n')}`);
  if (!/\b0 errors, 0 warnings\b/.test(said)) throw new Error(`rpmlint about ${file}:\n${said}`);
}
