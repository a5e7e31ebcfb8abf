import { existsSync } from 'node:fs';
import { join } from 'node:path';

/**
 * The folder that holds what the program reads beside its code: `package.json`, `proto/`, and in a built tree `native/`. It is
 * the nearest one above this file with a `package.json`: the checkout when run from source, `dist/` when run from a bundle,
 * wherever that was copied to.
 */
export const INSTALL_ROOT = nearest(import.meta.dirname);

function nearest(directory: string): string {
  for (let at = directory; ; at = join(at, '..')) {
    if (existsSync(join(at, 'package.json')) || at === '/') return at;
  }
}
