import * as fs from 'node:fs';
import { createServer, type Server } from 'node:net';
import { once } from 'node:events';
import { join } from 'node:path';
import { DaemonError, errnoOf } from '../../base/errors.ts';

/**
 * One daemon per directory. The lock is an abstract unix socket named after the directory's device and inode: the
 * kernel drops it with its process, so a killed daemon leaves nothing to clean. The file `lock` beside it only tells a
 * person who holds it.
 */
export class StoreLock implements AsyncDisposable {
  readonly #server: Server;
  readonly #file: string;

  private constructor(server: Server, file: string) {
    this.#server = server;
    this.#file = file;
  }

  /** `failed_precondition`, naming the holder, when another daemon has the directory. */
  static async take(directory: string): Promise<StoreLock> {
    const { dev, ino } = fs.statSync(directory, { bigint: true });
    const file = join(directory, 'lock');
    const server = createServer((socket) => socket.destroy());
    try {
      server.listen(`\0layerswarm-store-${dev}-${ino}`);
      await once(server, 'listening');
    } catch (error) {
      if (errnoOf(error) !== 'EADDRINUSE') throw error;
      const pid = holderOf(file);
      throw new DaemonError(
        'failed_precondition',
        `directory ${directory} is in use by another layerswarm daemon (pid ${pid}); stop it first, or give this one directories of its own`,
        { path: directory, pid },
        { cause: error },
      );
    }
    server.unref();
    fs.writeFileSync(file, `${process.pid}\n`);
    return new StoreLock(server, file);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    fs.rmSync(this.#file, { force: true });
    this.#server.close();
    await once(this.#server, 'close');
  }
}

function holderOf(file: string): string {
  try {
    const text = fs.readFileSync(file, 'utf8').trim();
    return /^\d{1,10}$/.test(text) ? text : 'unknown';
  } catch {
    // It is just starting or stopping; the socket is the proof, the number only a courtesy.
    return 'unknown';
  }
}
