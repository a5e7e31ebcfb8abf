import { chmodSync, existsSync, lstatSync, unlinkSync } from 'node:fs';
import { connect, createServer, type ListenOptions, type Server } from 'node:net';
import { dirname } from 'node:path';
import { type Clock, systemClock } from '../base/clock.ts';
import { DaemonError, errnoOf } from '../base/errors.ts';
import type { Logger } from '../ops/logger.ts';
import type { MetricRegister } from '../ops/register.ts';
import type { CallModules } from './call-runner.ts';
import { H2Server } from './h2/server.ts';
import { Routes } from './routes.ts';
import type { RpcServer } from './rpc-server.ts';
import type { ServiceTable } from './service.ts';

/** Longest path a unix socket can have: sun_path of unix(7) without its terminating zero. */
const MAX_SOCKET_PATH_BYTES = 107;
/** Connections the kernel keeps for us while we start or are busy. */
const BACKLOG = 512;
/** After a drain's deadline: how long handlers and connections have to notice that they were ended. */
const SETTLE_MS = 2000;

export type ListenModules = {
  readonly table: ServiceTable;
  readonly logger: Logger;
  readonly register: MetricRegister;
  readonly server: 'h2' | 'grpc-js';
  /** Deadlines of calls and of the drain; the system clock unless a test brings one. */
  readonly clock?: Clock;
};

export type ListenConfig = {
  /** Where clients connect. With `socket_fd` for messages only. */
  readonly socket_path: string;
  /** Access rights of the socket file; 0600 unless told otherwise. */
  readonly mode?: number;
  /** A listening socket that was inherited (systemd: 3). It is served as it is, its file is neither made nor removed. */
  readonly socket_fd?: number;
};

/** A socket being served. Disposing it is a drain without patience. */
export interface Listening extends AsyncDisposable {
  /**
   * Takes no more connections, sends clients elsewhere, waits for the calls under way up to `deadline_ms`, then ends
   * what is left with `unavailable`. Resolves when all connections are closed and all handlers have ended, or 2 s
   * after the deadline at the latest. May be called again with a nearer deadline; never rejects.
   */
  drain(deadline_ms: number): Promise<void>;
}

/**
 * Serves a table on a unix socket. A socket file that a killed daemon left behind is replaced.
 * @throws DaemonError `failed_precondition` when someone else serves the path or it is no socket, `config_invalid` for
 * a path that cannot be a socket's, `not_found` without its directory, `permission_denied`.
 */
export async function listen(modules: ListenModules, config: ListenConfig): Promise<Listening> {
  const { table, register, logger, clock = systemClock } = modules;
  const calls: CallModules = { routes: new Routes({ table, register }), clock, logger };
  const rpc = modules.server === 'h2' ? new H2Server(calls) : await grpcJsServer(calls);
  const listener = createServer((socket) => rpc.accept(socket));
  if (config.socket_fd === undefined) await bindPath(listener, config);
  else await bind(listener, { fd: config.socket_fd });
  // Running out of descriptors while accepting must not end the process; the kernel keeps the connection.
  listener.on('error', (err) => logger.error({ err }, 'socket cannot accept a connection'));
  return new SocketService(calls, rpc, listener);
}

/** Loaded only when asked for: grpc-js takes a third of the daemon's time to start. */
async function grpcJsServer(calls: CallModules): Promise<RpcServer> {
  const { GrpcJsServer } = await import('./grpc-server.ts');
  return new GrpcJsServer(calls);
}

class SocketService implements Listening {
  readonly #calls: CallModules;
  readonly #rpc: RpcServer;
  readonly #listener: Server;
  #closed = false;

  constructor(calls: CallModules, rpc: RpcServer, listener: Server) {
    this.#calls = calls;
    this.#rpc = rpc;
    this.#listener = listener;
  }

  async drain(deadline_ms: number): Promise<void> {
    const { clock, logger, routes } = this.#calls;
    // Node unlinks the file with the listener, only if it made it.
    if (!this.#closed) this.#listener.close();
    this.#closed = true;
    this.#rpc.drain();
    const idle = this.#rpc.idle();
    if (!(await within(clock, deadline_ms, idle))) {
      this.#rpc.shutDown(new DaemonError('unavailable', 'the daemon is shutting down; try again'));
      if (!(await within(clock, SETTLE_MS, idle))) {
        logger.warn({ deadline_ms }, 'calls did not end when told to; closing without them');
      }
    }
    routes.flush();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.drain(0);
  }
}

/** True when `done` resolves within `ms`. */
async function within(clock: Clock, ms: number, done: Promise<void>): Promise<boolean> {
  const stop = new AbortController();
  const timeout = clock.sleep(ms, { signal: stop.signal }).then(
    () => false,
    () => false,
  );
  const result = await Promise.race([done.then(() => true), timeout]);
  stop.abort();
  return result;
}

async function bindPath(listener: Server, config: ListenConfig): Promise<void> {
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
