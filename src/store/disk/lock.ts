import * as fs from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { DaemonError } from '../../base/errors.ts';
import { fileError } from './file-errors.ts';

/**
 * One daemon per directory. The lock is the kernel's, on a file inside the directory (so it holds across network and process namespaces,
 * and only who may write there can take it), and is dropped by the kernel with its process, so a killed daemon leaves nothing to clean.
 * Node offers no file locks; its SQLite takes them (fcntl), so an exclusive transaction on an empty database that never
 * writes is the lock. The file `lock` beside it only tells a person who holds it.
 */
export class StoreLock implements Disposable {
  readonly #database: DatabaseSync;
  readonly #file: string;

  private constructor(database: DatabaseSync, file: string) {
    this.#database = database;
    this.#file = file;
  }

  /** `failed_precondition`, naming the holder, when another daemon has the directory; `permission_denied` when it cannot be written. */
  static take(directory: string): StoreLock {
    const file = join(directory, 'lock');
    let database: DatabaseSync | undefined;
    try {
      database = new DatabaseSync(`${file}.db`, { timeout: 0 });
      // No journal file: the lock must be had on a full disk too.
      database.exec(
        'PRAGMA journal_mode = MEMORY; PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE',
      );
    } catch (error) {
      database?.close();
      if (!isLocked(error)) throw fileError(error, 'write', `${file}.db`);
      const pid = holderOf(file);
      throw new DaemonError(
        'failed_precondition',
        `directory ${directory} is in use by another layerswarm daemon (pid ${pid}); stop it first, or give this one directories of its own`,
        { path: directory, pid },
        { cause: error },
      );
    }
    try {
      fs.writeFileSync(file, `${process.pid}\n`);
    } catch {
      // Only a courtesy; a full disk must not keep the store closed.
    }
    return new StoreLock(database, file);
  }

  [Symbol.dispose](): void {
    fs.rmSync(this.#file, { force: true });
    this.#database.close();
  }
}

/** SQLITE_BUSY, as node:sqlite words it. */
function isLocked(error: unknown): boolean {
  return error instanceof Error && 'errcode' in error && error.errcode === 5;
}

function holderOf(file: string): string {
  try {
    const text = fs.readFileSync(file, 'utf8').trim();
    return /^\d{1,10}$/.test(text) ? text : 'unknown';
  } catch {
    // It is just starting or stopping; the lock is the proof, the number only a courtesy.
    return 'unknown';
  }
}
