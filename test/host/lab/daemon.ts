// The daemon under test on a lab host: a command line of the caller's, with kill, restart and a readiness probe.
import { connect } from 'node:net';
import type { LabHost } from './host.ts';
import type { Exit, LabProcess } from './process.ts';

export interface DaemonCommand {
  /** Names the log: `<host dir>/<name>.log`. Default `daemon`. */
  readonly name?: string;
  /** The whole command line; it runs inside the host's namespaces. */
  readonly argv: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  /** True once the daemon serves; polled, and a throw means "not yet". `answersOn(socket)` suits a unix socket. */
  readonly ready: () => Promise<boolean>;
  /** Default 10 s. */
  readonly ready_deadline_ms?: number;
}

/** One daemon of the product on a host; started again it gets the same command line. */
export class LabDaemon implements AsyncDisposable {
  readonly #host: LabHost;
  readonly #command: DaemonCommand;
  #process: LabProcess;

  private constructor(host: LabHost, command: DaemonCommand, child: LabProcess) {
    this.#host = host;
    this.#command = command;
    this.#process = child;
  }

  /** Starts it and waits until it is ready; the error of a failed start carries the end of its log. */
  static async start(host: LabHost, command: DaemonCommand): Promise<LabDaemon> {
    return new LabDaemon(host, command, await launch(host, command));
  }

  get process(): LabProcess {
    return this.#process;
  }

  /** Its log so far, the last megabyte. */
  async log(): Promise<string> {
    return this.#process.tail(1024 * 1024);
  }

  /** TERM, KILL after `deadline_ms`. */
  async stop(deadline_ms = 10_000): Promise<Exit> {
    return this.#process.stop(deadline_ms);
  }

  /** SIGKILL, as in a crash; resolves when it is gone. */
  async crash(): Promise<Exit> {
    this.#process.kill('SIGKILL');
    return this.#process.exited;
  }

  /** Stops it when it still runs, and starts it again. */
  async restart(): Promise<void> {
    await this.stop();
    this.#process = await launch(this.#host, this.#command);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }
}

/** True when something accepts connections on a unix socket. */
export async function answersOn(socket: string): Promise<boolean> {
  const client = connect(socket);
  try {
    return await new Promise<boolean>((resolve) => {
      client.once('connect', () => resolve(true));
      client.once('error', () => resolve(false));
    });
  } finally {
    client.destroy();
  }
}

async function launch(host: LabHost, command: DaemonCommand): Promise<LabProcess> {
  const options = command.env === undefined ? {} : { env: command.env };
  const child = await host.spawn(command.name ?? 'daemon', command.argv, options);
  try {
    await child.ready(command.ready, { deadline_ms: command.ready_deadline_ms ?? 10_000 });
    return child;
  } catch (error) {
    await child.stop(0);
    throw error;
  }
}
