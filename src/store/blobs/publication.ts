import { dirname } from 'node:path';
import type { Clock } from '../../base/clock.ts';
import { DaemonError } from '../../base/errors.ts';
import type { Digest } from '../../oci/digest.ts';
import type { Logger } from '../../ops/logger.ts';
import { fileError } from '../disk/file-errors.ts';
import { type FileIdentity, type Files, isSameFile } from '../disk/files.ts';
import type { StoreLayout } from '../disk/layout.ts';
import type { SyncLane, SyncTurn } from '../disk/sync-lane.ts';

/** A file with all bytes of a blob, open, at the path where it lies now. */
export type WholeFile = {
  readonly digest: Digest;
  readonly size_bytes: number;
  readonly fd: number;
  readonly path: string;
};

/** How a file is brought under `blobs/`. */
type Placing = {
  /** It gets containerd's mode and the present time. */
  readonly fresh: boolean;
  /** Asked in the moment of the rename; false = it is not wanted any more. */
  readonly isWanted: () => boolean;
  readonly turn: SyncTurn;
};

type Modules = {
  readonly files: Files;
  readonly lane: SyncLane;
  readonly layout: StoreLayout;
  readonly clock: Clock;
  readonly logger: Logger;
};

/**
 * The one way of a file under `blobs/`. containerd's database forces its own commit to the disk with fdatasync, which does not order
 * a rename before it: after a power cut the record was there and the blob was not. So the bytes and the name are on the disk before
 * containerd hears that the blob is complete, and its COMMIT costs nothing.
 */
export class Publication {
  readonly #m: Modules;
  #wired = true;

  constructor(modules: Modules) {
    this.#m = modules;
  }

  /** False: containerd does not use this store, so nothing is brought under `blobs/`. */
  set wired(wired: boolean) {
    this.#wired = wired;
  }

  get wired(): boolean {
    return this.#wired;
  }

  /**
   * Moves a verified file to its place, durably: content forced, renamed, directory forced. What was verified is the open descriptor, so the file of
   * that name must be the very same: `data_loss` otherwise, with nothing moved. Not wanted = nothing is moved, and the result is false.
   * Any failure leaves the file at `path` where that is possible. `resource_exhausted`, `permission_denied`; `failed_precondition` when containerd does not use this store.
   */
  async place(file: WholeFile, options: Placing): Promise<boolean> {
    const { turn } = options;
    const { files, lane, layout } = this.#m;
    const target = layout.blob(file.digest);
    this.#refuseUnwired(file);
    this.#same(file);
    try {
      if (options.fresh) await this.#dress(file.fd);
      await lane.file(file.fd, file.path, turn);
      await this.#directory(dirname(target), turn);
      // Nothing may happen between these: the world has changed during the waits above.
      this.#refuseUnwired(file);
      const identity = this.#same(file);
      if (!options.isWanted()) return false;
      files.renameNow(file.path, target);
      await this.#durable(file, target, identity, turn);
      return true;
    } catch (error) {
      throw fileError(error, 'write', target);
    }
  }

  /**
   * As containerd's own store leaves its blobs under its usual umask: readable only, the time of the commit. Our own umask is stricter and must not
   * show in a directory that is containerd's. Before the force, so that it is as durable as the rest.
   */
  async #dress(fd: number): Promise<void> {
    const { files, clock } = this.#m;
    await files.chmod(fd, 0o444);
    await files.utimes(fd, Number(clock.wall_ns()) / 1e9);
  }

  async #directory(path: string, turn: SyncTurn): Promise<void> {
    const { files, lane } = this.#m;
    if (files.lookNow(path) !== undefined) return;
    await files.mkdir(path, 0o755);
    await lane.directory(dirname(path), turn);
  }

  async #durable(
    file: WholeFile,
    target: string,
    identity: FileIdentity,
    turn: SyncTurn,
  ): Promise<void> {
    const { files, lane, logger } = this.#m;
    try {
      await lane.directory(dirname(target), turn);
    } catch (error) {
      try {
        if (isSameFile(identity, files.lookNow(target))) files.renameNow(target, file.path);
      } catch (err) {
        logger.warn({ err, digest: file.digest }, 'file of an unpublished blob stays in its place');
      }
      throw error;
    }
    if (!isSameFile(identity, files.lookNow(target))) throw replaced(file.digest, target);
  }

  #same({ fd, path, digest, size_bytes }: WholeFile): FileIdentity {
    const { files } = this.#m;
    const identity = files.identityNow(fd);
    const right = identity.is_file && identity.size_bytes === size_bytes;
    if (right && isSameFile(identity, files.lookNow(path))) return identity;
    throw replaced(digest, path);
  }

  #refuseUnwired({ digest }: WholeFile): void {
    if (this.#wired) return;
    throw new DaemonError(
      'failed_precondition',
      `blob ${digest} is not published: containerd does not use this store; run layerswarm doctor`,
      { digest },
    );
  }
}

function replaced(digest: Digest, path: string): DaemonError {
  return new DaemonError(
    'data_loss',
    `the file ${path} is not the one that was verified as ${digest}; something else replaced, truncated or removed it`,
    { digest, path },
  );
}
