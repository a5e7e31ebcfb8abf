import { type Clock, systemClock } from '../base/clock.ts';
import { DaemonError } from '../base/errors.ts';
import type { Logger } from '../ops/logger.ts';
import type { MetricRegister } from '../ops/register.ts';
import type { CallModules } from './call-runner.ts';
import { GREETING } from './h2/greeting.ts';
import { H2Server } from './h2/server.ts';
import { OpenSocket, type SocketConfig } from './open-socket.ts';
import { Routes } from './routes.ts';
import type { RpcServer } from './rpc-server.ts';
import type { ServiceTable } from './service.ts';

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

/** A socket being served. Disposing it is a drain without patience. */
export interface Listening extends AsyncDisposable {
  /**
   * Goes on serving until no call is under way; true when that came within `deadline_ms`. What is done right after it, in the
   * same turn, interrupts nobody. Never rejects.
   */
  quiet(deadline_ms: number): Promise<boolean>;
  /**
   * Takes no more connections, sends clients elsewhere, waits for the calls under way up to `deadline_ms`, then ends
   * what is left with `unavailable`. Resolves when all connections are closed and all handlers have ended, or 2 s
   * after the deadline at the latest. May be called again with a nearer deadline; never rejects.
   */
  drain(deadline_ms: number): Promise<void>;
}

/** Opens the socket ahead of `listen`; errors as of `OpenSocket.open`. `server` must be the one that will serve it. */
export function openSocket(
  modules: Pick<ListenModules, 'logger' | 'server'>,
  config: SocketConfig,
): Promise<OpenSocket> {
  const { logger, server } = modules;
  // grpc-js sends its own first words, and would take the answer to ours for a breach.
  return OpenSocket.open({ logger, greeting: server === 'h2' ? GREETING : undefined }, config);
}

/** Serves a table on a unix socket that was opened before, or opens it: errors as of `OpenSocket.open`. */
export async function listen(
  modules: ListenModules,
  config: SocketConfig | OpenSocket,
): Promise<Listening> {
  const { table, register, logger, clock = systemClock } = modules;
  const calls: CallModules = { routes: new Routes({ table, register }), clock, logger };
  const rpc = modules.server === 'h2' ? new H2Server(calls) : await grpcJsServer(calls);
  const socket = config instanceof OpenSocket ? config : await openSocket(modules, config);
  socket.serve((connection, greeted) => rpc.accept(connection, greeted), modules.server === 'h2');
  return new SocketService(calls, rpc, socket);
}

/** Loaded only when asked for: grpc-js takes a third of the daemon's time to start. */
async function grpcJsServer(calls: CallModules): Promise<RpcServer> {
  const { GrpcJsServer } = await import('./grpc-server.ts');
  return new GrpcJsServer(calls);
}

class SocketService implements Listening {
  readonly #calls: CallModules;
  readonly #rpc: RpcServer;
  readonly #socket: OpenSocket;

  constructor(calls: CallModules, rpc: RpcServer, socket: OpenSocket) {
    this.#calls = calls;
    this.#rpc = rpc;
    this.#socket = socket;
  }

  quiet(deadline_ms: number): Promise<boolean> {
    return within(this.#calls.clock, deadline_ms, this.#rpc.quiet());
  }

  async drain(deadline_ms: number): Promise<void> {
    const { clock, logger, routes } = this.#calls;
    this.#socket.close();
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
