import { createHash } from 'node:crypto';
import * as fs from 'node:fs';
import { join } from 'node:path';
import { DaemonError, errnoOf } from '../../base/errors.ts';
import { algorithmOf, type Digest, hexOf } from '../../oci/digest.ts';
import { DigestFiles } from './digest-files.ts';
import { fileError } from './file-errors.ts';
import type { StoreConfig } from '../store-config.ts';

/** Beginning of the names of what staging was before; removed in the background. */
const OLD_STAGING = 'staging-old-';

type Directories = Pick<
  StoreConfig,
  'content_directory' | 'state_directory' | 'work_directory' | 'create_content_directory'
>;

/**
 * Where everything lies. Names and modes below the content directory are those of containerd's local store
 * (plugins/content/local/store.go): `blobs/<algorithm>/<hex>` and `ingest/<sha256 of the ref>/`.
 */
export class StoreLayout {
  readonly content: string;
  readonly blobs: string;
  readonly ingests: string;
  readonly staging: string;
  readonly quarantine: string;
  /** Blobs that containerd does not reference, kept for peers: `<algorithm>/<hex>`. */
  readonly cache: string;
  readonly state: string;
  readonly labels: DigestFiles;
  /** What the first version kept instead of the folder `cache`: one empty file for each cache blob under `blobs/`. */
  readonly marks: DigestFiles;
  readonly pieces: DigestFiles;
  readonly lost: DigestFiles;
  /** One per algorithm. */
  readonly #made = new Set<string>();
  #next = 0;

  private constructor(config: Directories) {
    this.content = config.content_directory;
    this.blobs = join(config.content_directory, 'blobs');
    this.ingests = join(config.content_directory, 'ingest');
    this.staging = join(config.work_directory, 'staging');
    this.quarantine = join(config.work_directory, 'quarantine');
    this.cache = join(config.work_directory, 'cache');
    this.state = config.state_directory;
    this.labels = new DigestFiles(join(config.state_directory, 'labels'));
    this.marks = new DigestFiles(join(config.state_directory, 'cache'));
    this.pieces = new DigestFiles(join(config.state_directory, 'pieces'));
    this.lost = new DigestFiles(join(config.state_directory, 'lost'));
  }

  /**
   * Makes the directories that are ours and tries a write in each. `failed_precondition` when the content directory is
   * missing or on another file system than the work directory, `permission_denied` when one cannot be written.
   */
  static prepare(config: Directories): StoreLayout {
    const { content_directory, state_directory, work_directory } = config;
    if (config.create_content_directory) makeDirectory(content_directory, 0o755);
    if (!fs.existsSync(content_directory)) {
      throw new DaemonError(
        'failed_precondition',
        `content directory ${content_directory} does not exist; containerd makes it when it starts: name its <root>/io.containerd.content.v1.content, or let the store create it`,
        { path: content_directory },
      );
    }
    const layout = new StoreLayout(config);
    makeDirectory(layout.ingests, 0o755);
    makeDirectory(layout.blobs, 0o755);
    makeDirectory(state_directory, 0o700);
    makeDirectory(work_directory, 0o700);
    makeDirectory(layout.quarantine, 0o700);
    makeDirectory(layout.cache, 0o700);
    const [content, work] = [fs.statSync(layout.blobs), fs.statSync(work_directory)];
    if (content.dev !== work.dev) {
      throw new DaemonError(
        'failed_precondition',
        `work directory ${work_directory} is not on the file system of ${content_directory}; blobs move there by rename, so name a directory on the same one`,
        { path: work_directory },
      );
    }
    for (const path of [layout.blobs, layout.ingests, state_directory, work_directory]) probe(path);
    return layout;
  }

  /**
   * Gives a fresh staging directory, at once: what a killed process left there is renamed aside, because removing it takes seconds for
   * many gigabytes. Returns what is to be removed, from earlier starts too. Only for the holder of the store's lock.
   */
  renewStaging(): string[] {
    const work = join(this.staging, '..');
    if (fs.existsSync(this.staging)) {
      fs.renameSync(this.staging, join(work, `${OLD_STAGING}${Date.now()}-${process.pid}`));
    }
    makeDirectory(this.staging, 0o700);
    return fs
      .readdirSync(work)
      .filter((name) => name.startsWith(OLD_STAGING))
      .map((name) => join(work, name));
  }

  blob(digest: Digest): string {
    return join(this.blobs, algorithmOf(digest), hexOf(digest));
  }

  /** Where a blob lies that only peers may still want. Its directory is made when it is missing. */
  cached(digest: Digest): string {
    const directory = join(this.cache, algorithmOf(digest));
    if (!this.#made.has(directory)) {
      fs.mkdirSync(directory, { recursive: true, mode: 0o700 });
      this.#made.add(directory);
    }
    return join(directory, hexOf(digest));
  }

  ingest(ref: string): string {
    return join(this.ingests, createHash('sha256').update(ref).digest('hex'));
  }

  /** A path in staging that was not given out before. */
  fresh(kind: 'staged' | 'trash' | 'prefix'): string {
    this.#next += 1;
    return join(this.staging, `${kind}-${this.#next}`);
  }
}

function makeDirectory(path: string, mode: number): void {
  try {
    fs.mkdirSync(path, { mode });
    // The process's umask is stricter than containerd's, whose directories these are or could be.
    fs.chmodSync(path, mode);
  } catch (error) {
    if (errnoOf(error) === 'EEXIST') return;
    // Only then with parents: a recursive mkdir reports a read-only file system as ENOENT.
    if (errnoOf(error) !== 'ENOENT') throw fileError(error, 'write', path);
    try {
      fs.mkdirSync(path, { recursive: true, mode });
    } catch (inner) {
      throw fileError(inner, 'write', path);
    }
  }
}

function probe(directory: string): void {
  const path = join(directory, `.layerswarm-probe-${process.pid}`);
  try {
    fs.writeFileSync(path, '');
    fs.unlinkSync(path);
  } catch (error) {
    // A full disk is no reason to stay away: reading and deleting still work.
    if (errnoOf(error) === 'ENOSPC' || errnoOf(error) === 'EDQUOT') return;
    throw fileError(error, 'write', directory);
  }
}
