import * as fs from 'node:fs';
import { join } from 'node:path';
import { type Digest, hexOf } from '../../oci/digest.ts';
import type { Logger } from '../../ops/logger.ts';
import type { StoreLayout } from '../disk/layout.ts';

/** Most damaged files kept, and most bytes of them: enough to look at, too little to matter. The oldest go first. */
export const QUARANTINE_MAX_FILES = 16;
const QUARANTINE_MAX_BYTES = 4 * 1024 ** 3;

/** Damaged blob files put aside for a person to inspect. */
export class Quarantine {
  readonly #layout: StoreLayout;
  readonly #logger: Logger;

  constructor(modules: { layout: StoreLayout; logger: Logger }) {
    this.#layout = modules.layout;
    this.#logger = modules.logger;
  }

  /** Moves the file of `digest`, which lies at `file`, aside, at once. Where it lies now; undefined when there was none to move. */
  take(digest: Digest, file: string): string | undefined {
    const path = join(this.#layout.quarantine, `${hexOf(digest)}-${Date.now()}`);
    try {
      fs.renameSync(file, path);
      this.#trim();
    } catch (err) {
      // Missing is the usual reason. The blob is out of the index in any case.
      this.#logger.debug({ err, digest }, 'nothing moved to quarantine');
    }
    return fs.existsSync(path) ? path : undefined;
  }

  #trim(): void {
    const files = fs
      .readdirSync(this.#layout.quarantine)
      .map((name) => join(this.#layout.quarantine, name))
      .map((path) => ({ path, ...pick(fs.statSync(path)) }))
      .sort((a, b) => b.changed_ms - a.changed_ms);
    let bytes = 0;
    for (const [position, file] of files.entries()) {
      bytes += file.size;
      if (position < QUARANTINE_MAX_FILES && bytes <= QUARANTINE_MAX_BYTES) continue;
      fs.rmSync(file.path, { force: true });
    }
  }
}

function pick(stat: fs.Stats): { size: number; changed_ms: number } {
  return { size: stat.size, changed_ms: stat.ctimeMs };
}
