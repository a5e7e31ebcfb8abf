import type { Socket } from 'node:net';
import type { DaemonError } from '../../base/errors.ts';
import type { CallModules } from '../call-runner.ts';
import type { RpcServer } from '../rpc-server.ts';
import { Connection, type ConnectionModules } from './connection.ts';
import { CreditPool } from './credit-pool.ts';

/** Clients at once. containerd holds one connection, each command line client one. */
const MAX_CONNECTIONS = 256;

/** gRPC over our own HTTP/2, made for a unix socket: clients are local processes that may open the socket. */
export class H2Server implements RpcServer {
  readonly #modules: ConnectionModules;
  readonly #connections = new Set<Connection>();
  readonly #idle: (() => void)[] = [];
  readonly #quiet: (() => void)[] = [];
  #unsettled = 0;
  #draining = false;

  constructor(modules: CallModules) {
    this.#modules = { ...modules, pool: new CreditPool(modules) };
    modules.routes.watch(() => ({
      connections: this.#connections.size,
      streams: [...this.#connections].reduce((sum, { openStreams }) => sum + openStreams, 0),
    }));
  }

  accept(socket: Socket, greeted: boolean): void {
    if (this.#connections.size >= MAX_CONNECTIONS) {
      this.#modules.logger.warn({ limit: MAX_CONNECTIONS }, 'client refused: too many connections');
      socket.destroy();
      return;
    }
    const connection = new Connection(
      this.#modules,
      { socket, greeted },
      {
        closed: (closed) => {
          this.#connections.delete(closed);
          this.#wake();
        },
        runnerStarted: () => {
          this.#unsettled += 1;
        },
        runnerSettled: () => {
          this.#unsettled -= 1;
          this.#wake();
        },
      },
    );
    this.#connections.add(connection);
    if (this.#draining) connection.drain();
  }

  drain(): void {
    this.#draining = true;
    for (const connection of this.#connections) connection.drain();
  }

  shutDown(error: DaemonError): void {
    this.#draining = true;
    for (const connection of [...this.#connections]) connection.shutDown(error);
  }

  quiet(): Promise<void> {
    return new Promise((resolve) => {
      this.#quiet.push(resolve);
      this.#wake();
    });
  }

  idle(): Promise<void> {
    return new Promise((resolve) => {
      this.#idle.push(resolve);
      this.#wake();
    });
  }

  #wake(): void {
    if (this.#unsettled > 0) return;
    for (const resolve of this.#quiet.splice(0)) resolve();
    if (this.#connections.size > 0) return;
    for (const resolve of this.#idle.splice(0)) resolve();
  }
}
