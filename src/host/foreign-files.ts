import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { errnoOf } from '../base/errors.ts';
import { type Digest, isDigest } from '../oci/digest.ts';

const ALGORITHMS = ['sha256', 'sha384', 'sha512'] as const;
/** Names compared in one directory; a host has thousands. */
const NAMES_MAX = 200_000;
/** Foreign files remembered, so that each is judged once; beyond it they are judged again. */
const FOREIGN_MAX = 8_192;
/** File times are those of the kernel's last tick, and a clock may be set by a little. */
const CLOCK_SLACK_MS = 2_000;

/** What this daemon has written itself, from memory. */
export type OwnFiles = {
  readonly hasBlob: (digest: Digest) => boolean;
  /** Names of the directories of all ingests. Asked only when a directory is there that was not before. */
  readonly ingestDirectories: () => ReadonlySet<string>;
};

/** What somebody else put into the content directory while this daemon ran. */
export type ForeignFiles = {
  /** When the newest of them came, as a time of day in ms. */
  readonly newest_epoch_ms: number;
  /** That one, for a message. */
  readonly example: string;
};

type Directory = {
  readonly path: string;
  readonly digestOf: ((name: string) => string) | undefined;
};

/**
 * Finds blobs and ingests that came into the content directory past us: only another content store writes there. A look costs a
 * `stat` per directory; names are read when a directory has changed. A file counts when two looks in a row saw it and we did not know
 * it, so that one of ours between its rename and its entry does not.
 */
export class ForeignFileLook {
  readonly #own: OwnFiles;
  readonly #directories: readonly Directory[];
  readonly #since_epoch_ms: number;
  readonly #seen = new Map<string, string>();
  #suspects = new Set<string>();
  readonly #judged = new Set<string>();
  #newest: ForeignFiles | undefined;

  constructor(
    modules: { readonly own: OwnFiles },
    config: { readonly content_directory: string; readonly since_epoch_ms: number },
  ) {
    this.#own = modules.own;
    this.#since_epoch_ms = config.since_epoch_ms + CLOCK_SLACK_MS;
    const { content_directory } = config;
    this.#directories = [
      ...ALGORITHMS.map((algorithm) => ({
        path: join(content_directory, 'blobs', algorithm),
        digestOf: (name: string) => `${algorithm}:${name}`,
      })),
      { path: join(content_directory, 'ingest'), digestOf: undefined },
    ];
  }

  /** What was found so far; undefined when nothing was. Rejects on a directory that cannot be read. */
  async look(): Promise<ForeignFiles | undefined> {
    const suspects = new Set<string>();
    for (const directory of this.#directories) {
      if (!(await this.#hasChanged(directory.path)) && !this.#suspectsIn(directory.path)) continue;
      for (const path of await this.#unknownIn(directory)) suspects.add(path);
    }
    for (const path of suspects) if (this.#suspects.has(path)) await this.#take(path);
    this.#suspects = suspects;
    return this.#newest;
  }

  async #hasChanged(path: string): Promise<boolean> {
    const now = await stat(path, { bigint: true }).then(
      (s) => `${s.ino} ${s.mtimeNs} ${s.ctimeNs}`,
      (error: unknown) => absent(error, ''),
    );
    const changed = this.#seen.get(path) !== now;
    this.#seen.set(path, now);
    return changed;
  }

  #suspectsIn(directory: string): boolean {
    for (const path of this.#suspects) if (path.startsWith(`${directory}/`)) return true;
    return false;
  }

  async #unknownIn({ path, digestOf }: Directory): Promise<string[]> {
    const names = await readdir(path).catch((error: unknown) => absent(error, []));
    if (names.length > NAMES_MAX) return [];
    const ingests = digestOf === undefined ? this.#own.ingestDirectories() : undefined;
    const unknown = names.filter((name) => {
      if (digestOf === undefined) return /^[0-9a-f]{64}$/.test(name) && !ingests?.has(name);
      const digest = digestOf(name);
      return isDigest(digest) && !this.#own.hasBlob(digest);
    });
    const found = unknown.map((name) => join(path, name));
    return found.filter((one) => !this.#judged.has(one)).slice(0, FOREIGN_MAX);
  }

  /** Only what came after our start: what lay there before was ours to find. */
  async #take(path: string): Promise<void> {
    const came = await stat(path).then(
      (s) => s.ctimeMs,
      (error: unknown) => absent(error, undefined),
    );
    if (this.#judged.size >= FOREIGN_MAX) this.#judged.clear();
    this.#judged.add(path);
    if (came === undefined || came < this.#since_epoch_ms) return;
    if (came > (this.#newest?.newest_epoch_ms ?? 0)) {
      this.#newest = { newest_epoch_ms: came, example: path };
    }
  }
}

/** A file or directory that is not there is no fault: containerd makes and removes them. */
function absent<T>(error: unknown, otherwise: T): T {
  if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ENOTDIR') return otherwise;
  throw error;
}
