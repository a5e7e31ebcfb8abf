import * as fs from 'node:fs';
import { join } from 'node:path';
import type { Digest } from '../../oci/digest.ts';
import type { Logger } from '../../ops/logger.ts';
import type { DigestFiles } from '../disk/digest-files.ts';

/**
 * Which blobs are cache, across restarts: an empty file for each.
 *
 * A mark is only as good as our knowledge of what containerd did since: with its built-in store it may adopt a blob
 * without leaving a trace in the content directory. So marks count only when we closed in order and containerd's metadata
 * file has not changed since. Otherwise they are dropped and every blob counts as owned: nothing can be evicted wrongly, the
 * blobs appear in List, and containerd's next garbage collection deletes (marks) again what it does not know.
 */
export class CacheMarks {
  readonly #files: DigestFiles;
  readonly #logger: Logger;
  readonly #proof: string;
  readonly #metadata_file: string;

  constructor(
    modules: { files: DigestFiles; logger: Logger },
    config: { state_directory: string; metadata_file: string },
  ) {
    this.#files = modules.files;
    this.#logger = modules.logger;
    this.#proof = join(config.state_directory, 'closed');
    this.#metadata_file = config.metadata_file;
  }

  /** The marked digests, the oldest first, if they can be trusted; clears them otherwise. */
  recover(): Digest[] {
    const marked = this.#files.digests();
    const trusted = this.#provenUnchanged();
    // From here on a crash must find no proof.
    fs.rmSync(this.#proof, { force: true });
    if (trusted) {
      return marked
        .map((digest) => ({ digest, age: this.#files.age(digest) }))
        .sort((a, b) => a.age - b.age)
        .map(({ digest }) => digest);
    }
    for (const digest of marked) this.#files.remove(digest);
    if (marked.length > 0) {
      this.#logger.info(
        { blobs: marked.length },
        'cache marks dropped: containerd may have adopted',
      );
    }
    return [];
  }

  /** At once. A mark that cannot be written only means that the blob counts as owned after a restart. */
  set(digest: Digest): void {
    try {
      this.#files.put(digest, '');
    } catch (err) {
      this.#logger.warn({ err, digest }, 'cache mark not written');
    }
  }

  /** At once. */
  clear(digest: Digest): void {
    this.#files.remove(digest);
  }

  /** The store closes in order: the marks hold as long as containerd's metadata stays as it is. */
  seal(): void {
    fs.writeFileSync(this.#proof, this.#metadataIdentity());
  }

  #provenUnchanged(): boolean {
    if (!fs.existsSync(this.#proof)) return false;
    return fs.readFileSync(this.#proof, 'utf8') === this.#metadataIdentity();
  }

  #metadataIdentity(): string {
    const found = fs.statSync(this.#metadata_file, { bigint: true, throwIfNoEntry: false });
    return found === undefined ? 'absent' : `${found.ino} ${found.size} ${found.mtimeNs}`;
  }
}
