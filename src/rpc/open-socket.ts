import { chmodSync, existsSync, lstatSync, unlinkSync } from 'node:fs';
import { connect, createServer, type ListenOptions, type Server, type Socket } from 'node:net';
import { dirname } from 'node:path';
import { DaemonError, errnoOf } from '../base/errors.ts';
import type { Logger } from '../ops/logger.ts';

/** Longest path a unix socket can have: sun_path of unix(7) without its terminating zero. */
const MAX_SOCKET_PATH_BYTES = 107;
/** Connections the kernel keeps for us while we start or are busy. */
const BACKLOG = 512;
/** Connections that may wait for the service to be ready; clients are containerd and command lines. */
const MAX_WAITING = 256;

export type SocketConfig = {
  /** Where clients connect. With `socket_fd` for messages only. */
  readonly socket_path: string;
  /** Access rights of the socket file; 0600 unless told otherwise. */
  readonly mode?: number;
  /** A listening socket that was inherited (systemd: 3). It is served as it is, its file is neither made nor removed. */
  readonly socket_fd?: number;
};

/** Takes a connection over; `greeted`: the greeting was sent on it already. */
type Accept = (socket: Socket, greeted: boolean) => void;

/**
 * A listening unix socket, from the moment it is opened: clients that connect before there is a service are greeted and wait.
 * containerd gives a new connection one second to say its first word, and opening a large store takes longer.
 */
export class OpenSocket implements AsyncDisposable {
  readonly #listener: Server;
  readonly #waiting = new Set<Socket>();
  #accept: Accept | undefined;
  #closed = false;
  readonly #left = (): void => {
    for (const socket of this.#waiting) if (socket.destroyed) this.#waiting.delete(socket);
  };

  private constructor(modules: {
    readonly greeting: Uint8Array | undefined;
    readonly logger: Logger;
  }) {
    const { greeting, logger } = modules;
    this.#listener = createServer((socket) => {
      if (this.#accept !== undefined) this.#accept(socket, false);
      else if (this.#waiting.size >= MAX_WAITING) socket.destroy();
      else this.#hold(socket, greeting);
    });
    // Running out of descriptors while accepting must not end the process; the kernel keeps the connection.
    this.#listener.on('error', (err) => logger.error({ err }, 'socket cannot accept a connection'));
  }

  /**
   * Opens it. A socket file that a killed daemon left behind is replaced. `greeting` is what a server says first, if that
   * can be said before the server is there.
   * @throws DaemonError `failed_precondition` when someone else serves the path or it is no socket, `config_invalid` for
   * a path that cannot be a socket's, `not_found` without its directory, `permission_denied`.
   */
  static async open(
    modules: { readonly greeting: Uint8Array | undefined; readonly logger: Logger },
    config: SocketConfig,
  ): Promise<OpenSocket> {
    const socket = new OpenSocket(modules);
    if (config.socket_fd === undefined) await bindPath(socket.#listener, config);
    else await bind(socket.#listener, { fd: config.socket_fd });
    return socket;
  }

  /** From now on `accept` has the connections, those that waited first. Called once. */
  serve(accept: Accept, greets: boolean): void {
    this.#accept = accept;
    for (const socket of this.#waiting) {
      // Only ours: others are Node's own.
      socket.off('error', ignore);
      socket.off('close', this.#left);
      accept(socket, greets);
      socket.resume();
    }
    this.#waiting.clear();
  }

  /** Takes no more connections. Node unlinks the file with the listener, only if it made it. */
  close(): void {
    if (!this.#closed) this.#listener.close();
    this.#closed = true;
    for (const socket of this.#waiting) socket.destroy();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.close();
    return Promise.resolve();
  }

  #hold(socket: Socket, greeting: Uint8Array | undefined): void {
    socket.pause();
    this.#waiting.add(socket);
    socket.on('error', ignore);
    socket.on('close', this.#left);
    if (greeting !== undefined) socket.write(greeting);
  }
}

async function bindPath(listener: Server, config: SocketConfig): Promise<void> {
  const { socket_path: path, mode = 0o600 } = config;
  if (Buffer.byteLength(path) > MAX_SOCKET_PATH_BYTES) {
    throw new DaemonError(
      'config_invalid',
      `socket path ${path} is longer than the ${MAX_SOCKET_PATH_BYTES} bytes a unix socket's may have`,
      { path },
    );
  }
  // Asked first: libuv reports a missing directory as EACCES.
  if (!existsSync(dirname(path))) {
    throw new DaemonError(
      'not_found',
      `directory ${dirname(path)} of the socket does not exist; create it, or set another socket_path`,
      { path },
    );
  }
  await removeStale(path);
  // The mask makes the file private from its first moment; chmod then gives what was asked for.
  const mask = process.umask(0o777 & ~mode);
  const bound = bind(listener, { path, backlog: BACKLOG });
  process.umask(mask);
  try {
    await bound;
    chmodSync(path, mode);
  } catch (error) {
    throw explain(error, path);
  }
}

/** `listen` binds before it returns, and reports later. */
function bind(listener: Server, options: ListenOptions & { fd?: number }): Promise<void> {
  return new Promise((resolve, reject) => {
    listener.once('error', reject);
    listener.listen(options, () => {
      listener.off('error', reject);
      resolve();
    });
  });
}

function explain(error: unknown, path: string): DaemonError {
  const errno = errnoOf(error);
  const facts = { path, errno };
  if (errno === 'EACCES' || errno === 'EPERM') {
    return new DaemonError('permission_denied', `socket ${path} may not be created here`, facts, {
      cause: error,
    });
  }
  if (errno === 'EADDRINUSE') return inUse(path, 'another process');
  return new DaemonError('internal', `socket ${path} cannot be created (${errno})`, facts, {
    cause: error,
  });
}

function inUse(path: string, by: string): DaemonError {
  return new DaemonError('failed_precondition', `socket path ${path} is in use by ${by}`, { path });
}

/** Removes a socket file that nobody listens on. */
async function removeStale(path: string): Promise<void> {
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (found === undefined) return;
  if (!found.isSocket()) throw inUse(path, 'a file that is not a socket');
  const errno = await probe(path);
  if (errno === undefined) throw inUse(path, 'another daemon; stop it first');
  if (errno === 'ECONNREFUSED') {
    try {
      unlinkSync(path);
    } catch (error) {
      if (errnoOf(error) !== 'ENOENT') throw explain(error, path);
    }
  } else if (errno !== 'ENOENT') {
    // EAGAIN: its backlog is full, so somebody listens.
    throw inUse(path, `a process that cannot be asked (${errno})`);
  }
}

/** Connects and leaves again: undefined when somebody listens, else the system's error code. */
export function probe(path: string): Promise<string | undefined> {
  return new Promise((resolve) => {
    const socket = connect(path);
    socket.once('connect', () => {
      socket.destroy();
      resolve(undefined);
    });
    socket.once('error', (error) => resolve(errnoOf(error) ?? 'unknown'));
  });
}

/** 'close' follows an error and does the work. */
function ignore(): void {}
