import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import type { TestContext } from 'node:test';

/** A directory with configuration, gone after the test. */
export function scratch(t: Pick<TestContext, 'after'>) {
  const directory = mkdtempSync(join(tmpdir(), 'layerswarm-registry-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const put = (name: string, text: string, mode = 0o644): string => {
    const file = join(directory, name);
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(file, text, { mode });
    return file;
  };
  return { directory, put };
}
