import * as fs from 'node:fs';
import { open, rename } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { errnoOf } from '../../base/errors.ts';
import { algorithmOf, type Digest, hexOf, isDigest } from '../../oci/digest.ts';

/** Small files of ours, one per digest: `<root>/<algorithm>/<hex>`. */
export class DigestFiles {
  readonly #root: string;

  constructor(root: string) {
    this.#root = root;
  }

  /** All digests that have a file; anything else is passed over. */
  digests(): Digest[] {
    return namesIn(this.#root).flatMap((algorithm) =>
      namesIn(join(this.#root, algorithm))
        .map((hex) => `${algorithm}:${hex}`)
        .filter(isDigest),
    );
  }

  path(digest: Digest): string {
    return join(this.#root, algorithmOf(digest), hexOf(digest));
  }

  /** The content, or undefined when there is no file. */
  read(digest: Digest): Buffer | undefined {
    try {
      return fs.readFileSync(this.path(digest));
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return undefined;
      throw error;
    }
  }

  /** Not durable, at once. */
  put(digest: Digest, content: string): void {
    const path = this.path(digest);
    fs.mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
    fs.writeFileSync(path, content, { mode: 0o600 });
  }

  /** Durable and whole or not at all. Callers keep two writes of one digest apart. */
  async replace(digest: Digest, content: Uint8Array | string): Promise<void> {
    const path = this.path(digest);
    fs.mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
    await using file = await open(`${path}.tmp`, 'w', 0o600);
    await file.writeFile(content);
    await file.sync();
    await rename(`${path}.tmp`, path);
  }

  /** At once. Never throws: what is kept about a blob must not fail what happens to the blob, and whatever stays is removed at the next start or replaced. */
  remove(digest: Digest): void {
    try {
      fs.rmSync(this.path(digest), { force: true });
    } catch {
      // A read-only or failing disk; whoever writes to it next says so.
    }
  }

  /** Modification time in ms, for ordering by age. */
  age(digest: Digest): number {
    return fs.statSync(this.path(digest), { throwIfNoEntry: false })?.mtimeMs ?? 0;
  }
}

function namesIn(directory: string): string[] {
  try {
    return fs.readdirSync(directory);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ENOTDIR') return [];
    throw error;
  }
}
