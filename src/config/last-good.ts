import { mkdir, open, rename, rm } from 'node:fs/promises';
import { readFileSync, statSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { errnoOf } from '../base/errors.ts';

/** In the state directory: the text of the configuration file that served last, mode 0600. */
const LAST_GOOD_FILE = 'last-good-config.toml';

/** A copy is good for the file it was made of and for no other. */
function header(file: string): string {
  return `# Kept by layerswarm: the configuration that served last, from ${JSON.stringify(resolve(file))}. Changes here are lost.\n`;
}

/** Keeps the text as what served last. Each copy is there whole or not at all, also after a power cut. Errors of the file system pass through. */
export async function keepLastGood(
  directories: readonly string[],
  file: string,
  text: string,
): Promise<void> {
  for (const directory of new Set(directories)) {
    await mkdir(directory, { recursive: true, mode: 0o700 });
    await writeWhole(directory, header(file) + text);
  }
}

async function writeWhole(directory: string, text: string): Promise<void> {
  const path = join(directory, LAST_GOOD_FILE);
  const fresh = `${path}.new`;
  // What an interrupted start left may have another mode.
  await rm(fresh, { force: true });
  {
    await using handle = await open(fresh, 'wx', 0o600);
    await handle.writeFile(text);
    await handle.sync();
  }
  await rename(fresh, path);
  await using folder = await open(directory, 'r');
  await folder.sync();
}

/** The texts kept for the file in these directories, newest first. One that cannot be read counts as none. */
export function lastGoodTexts(directories: readonly string[], file: string): readonly string[] {
  const begin = header(file);
  const found: { readonly text: string; readonly modified_ms: number }[] = [];
  for (const directory of new Set(directories)) {
    const path = join(directory, LAST_GOOD_FILE);
    try {
      const { mtimeMs: modified_ms } = statSync(path);
      const text = readFileSync(path, 'utf8');
      if (text.startsWith(begin)) found.push({ text: text.slice(begin.length), modified_ms });
    } catch (error) {
      // Missing, or not for our eyes: somebody else may look it up with more rights.
      if (errnoOf(error) === undefined) throw error;
    }
  }
  return found.sort((a, b) => b.modified_ms - a.modified_ms).map(({ text }) => text);
}
