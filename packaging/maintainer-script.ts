import { readFileSync } from 'node:fs';
import { join } from 'node:path';

export const DEB_SCRIPTS = ['postinst', 'prerm', 'postrm'] as const;
export const RPM_SCRIPTS = ['post', 'preun', 'postun'] as const;

/** `packaging/scripts/NAME.sh` with what it includes: on a host each script stands alone. */
export function maintainerScript(root: string, name: string): string {
  const read = (file: string): string =>
    readFileSync(join(root, 'packaging/scripts', file), 'utf8');
  return read(`${name}.sh`).replaceAll(/^#include (\S+)\n/gm, (_, file: string) => read(file));
}
