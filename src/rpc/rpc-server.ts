import type { Socket } from 'node:net';
import type { DaemonError } from '../base/errors.ts';

/** A server that is given its connections: where they come from is `listen`'s business. */
export interface RpcServer {
  /** Serves one connection; owns the socket from here on. `greeted`: the server's first words were sent on it already. */
  accept(socket: Socket, greeted: boolean): void;
  /** Resolves in a moment when no handler runs; calls are taken all the time. */
  quiet(): Promise<void>;
  /** Tells every client to go elsewhere for new calls; the ones under way end in their time. */
  drain(): void;
  /** Ends every call with `error`'s status, and the connections. */
  shutDown(error: DaemonError): void;
  /** Resolves when no connection is open and no handler runs; only after `drain` or `shutDown` does that come by itself. */
  idle(): Promise<void>;
}
