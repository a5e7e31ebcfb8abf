import type { Socket } from 'node:net';
import {
  type ConnectionInjector,
  Server,
  type ServerDuplexStream,
  ServerCredentials,
} from '@grpc/grpc-js';
import { DaemonError } from '../base/errors.ts';
import { type CallModules, type CallPort, CallRunner } from './call-runner.ts';
import type { Route } from './routes.ts';
import type { RpcServer } from './rpc-server.ts';
import type { CallStatus } from './status.ts';

/** As on our own server: 16 MiB of payload and the fields around it. */
const MAX_MESSAGE_BYTES = 16 * 1024 * 1024 + 65_536;
/** How long grpc-js lets its sessions live after GOAWAY; `listen` ends them earlier, by `shutDown`. */
const SESSION_GRACE_MS = 600_000;

type RawCall = ServerDuplexStream<Buffer, Buffer>;

/**
 * The same table on grpc-js, the yardstick and fallback of our own server. Every method is registered as a stream both
 * ways (on the wire that is the same thing), so that one adapter feeds the call runner.
 */
export class GrpcJsServer implements RpcServer {
  readonly #modules: CallModules;
  readonly #server = new Server({
    'grpc.max_receive_message_length': MAX_MESSAGE_BYTES,
    'grpc.max_send_message_length': -1,
  });
  readonly #injector: ConnectionInjector;
  readonly #sockets = new Set<Socket>();
  readonly #runners = new Set<CallRunner>();
  readonly #idle: (() => void)[] = [];
  readonly #quiet: (() => void)[] = [];
  #unsettled = 0;

  constructor(modules: CallModules) {
    this.#modules = modules;
    modules.routes.watch(() => ({
      connections: this.#sockets.size,
      streams: this.#runners.size,
    }));
    for (const route of modules.routes.all) {
      this.#server.register<Buffer, Buffer>(
        route.path,
        (call: RawCall) => this.#serve(route, call),
        (bytes) => bytes,
        (bytes) => bytes,
        'bidi',
      );
    }
    this.#injector = this.#server.createConnectionInjector(ServerCredentials.createInsecure());
  }

  accept(socket: Socket): void {
    this.#sockets.add(socket);
    socket.on('error', () => undefined);
    socket.on('close', () => {
      this.#sockets.delete(socket);
      this.#wake();
    });
    this.#injector.injectConnection(socket);
  }

  drain(): void {
    this.#injector.drain(SESSION_GRACE_MS);
  }

  shutDown(error: DaemonError): void {
    for (const runner of [...this.#runners]) runner.fail(error);
    // The statuses leave in this turn's writes; sessions end behind them.
    setImmediate(() => {
      this.#server.forceShutdown();
      for (const socket of this.#sockets) socket.destroySoon();
    });
  }

  quiet(): Promise<void> {
    return new Promise((resolve) => {
      this.#quiet.push(resolve);
      this.#wake();
    });
  }

  /** grpc-js does not count calls on injected connections, so handlers and sockets are counted here. */
  idle(): Promise<void> {
    return new Promise((resolve) => {
      this.#idle.push(resolve);
      this.#wake();
    });
  }

  #wake(): void {
    if (this.#unsettled > 0) return;
    for (const resolve of this.#quiet.splice(0)) resolve();
    if (this.#sockets.size > 0) return;
    for (const resolve of this.#idle.splice(0)) resolve();
  }

  #serve(route: Route, call: RawCall): void {
    this.#unsettled += 1;
    const [namespace] = call.metadata.get('containerd-namespace');
    const runner: CallRunner = new CallRunner(
      this.#modules,
      {
        route,
        namespace: String(namespace ?? ''),
        timeout_ms: timeoutOf(call),
        settled: () => {
          this.#unsettled -= 1;
          this.#runners.delete(runner);
          this.#wake();
        },
      },
      new CallAdapter(call),
    );
    this.#runners.add(runner);
    // No `for await` here: leaving such a loop destroys the stream before its status is sent, and the client waits for ever.
    call.on('data', (message: Buffer) => {
      call.pause();
      runner.message(message);
    });
    call.on('end', () => runner.halfClose());
    call.on('cancelled', () => runner.abort());
    call.on('error', () => runner.abort());
    runner.start();
  }
}

class CallAdapter implements CallPort {
  readonly #call: RawCall;
  #over = false;

  constructor(call: RawCall) {
    this.#call = call;
  }

  send(message: Uint8Array): Promise<void> | undefined {
    const call = this.#call;
    const buffer = Buffer.from(message.buffer, message.byteOffset, message.byteLength);
    if (this.#over || call.write(buffer)) return undefined;
    return new Promise((resolve) => {
      const done = (): void => {
        call.off('drain', done).off('cancelled', done).off('close', done);
        resolve();
      };
      call.on('drain', done).on('cancelled', done).on('close', done);
    });
  }

  end(status: CallStatus): void {
    this.#over = true;
    if (status.code === 'ok') this.#call.end();
    else this.#call.emit('error', { code: status.grpc, details: status.message });
    this.#call.resume();
  }

  taken(): void {
    if (!this.#over) this.#call.resume();
  }

  /** grpc-js counts windows itself, one message ahead. */
  freed(): void {}
}

/** grpc-js has turned `grpc-timeout` into a point in time, and ends the call itself then; the handler is told by us. */
function timeoutOf(call: RawCall): number | undefined {
  const deadline = call.getDeadline();
  const at_ms = deadline instanceof Date ? deadline.getTime() : deadline;
  return Number.isFinite(at_ms) ? Math.max(0, at_ms - Date.now()) : undefined;
}
