// The product's daemon on a lab host: process, status and log.
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { fetchStatus } from '../../src/cli/control-client.ts';
import type { StatusResponse__Output } from '../../src/gen/layerswarm/control/v1/StatusResponse.ts';
import { LabDaemon } from './lab/daemon.ts';
import type { LabHost } from './lab/host.ts';
import type { Exit } from './lab/process.ts';
import type { CommandResult } from './lab/run-command.ts';

/** Longest wait for a status, in ms. */
const STATUS_DEADLINE_MS = 5000;

interface NodeDaemonParts {
  readonly host: LabHost;
  readonly argv: readonly string[];
  /** Command line of the product, without a subcommand. */
  readonly product: readonly string[];
  readonly ready: () => Promise<boolean>;
  readonly socket: string;
  readonly config: string;
}

/** One daemon; started again it keeps its configuration and, unless told otherwise, its identity. */
export class NodeDaemon implements AsyncDisposable {
  readonly socket: string;
  readonly config: string;
  readonly #host: LabHost;
  readonly #product: readonly string[];
  readonly #daemon: LabDaemon;

  private constructor(parts: NodeDaemonParts, daemon: LabDaemon) {
    this.socket = parts.socket;
    this.config = parts.config;
    this.#host = parts.host;
    this.#product = parts.product;
    this.#daemon = daemon;
  }

  static async start(parts: NodeDaemonParts): Promise<NodeDaemon> {
    const { host, argv, ready } = parts;
    return new NodeDaemon(parts, await LabDaemon.start(host, { argv, ready }));
  }

  get pid(): number {
    return this.#daemon.process.pid;
  }

  get running(): boolean {
    return this.#daemon.process.running;
  }

  /** Its status over the control door. */
  async status(): Promise<StatusResponse__Output> {
    return fetchStatus(this.socket, AbortSignal.timeout(STATUS_DEADLINE_MS));
  }

  /** `layerswarm status --json` as an operator runs it; parsed. */
  async statusJson(): Promise<unknown> {
    const { stdout } = await this.cli(['status', '--json', '--socket', this.socket]);
    return JSON.parse(stdout);
  }

  /** Runs the product's command line on the host, however it exits. */
  async cli(args: readonly string[]): Promise<CommandResult> {
    return this.#host.tryRun([...this.#product, ...args]);
  }

  /** Own peer id, from its status. */
  async peerId(): Promise<string> {
    return (await this.status()).swarm?.peerId ?? '';
  }

  /** Value of a metric, summed over the series whose labels contain `labels`; 0 when there is none. */
  async metric(name: string, labels = ''): Promise<number> {
    const fetchText = `fetch('http://127.0.0.1:9479/metrics').then((r) => r.text()).then((t) => process.stdout.write(t))`;
    const { stdout } = await this.#host.run([process.execPath, '-e', fetchText]);
    return stdout
      .split('\n')
      .filter((line) => line.startsWith(`${name}{`) || line.startsWith(`${name} `))
      .filter((line) => line.includes(labels))
      .reduce((sum, line) => sum + Number(line.split(' ').at(-1)), 0);
  }

  async log(): Promise<string> {
    return this.#daemon.log();
  }

  async stop(): Promise<Exit> {
    return this.#daemon.stop();
  }

  /** SIGKILL. */
  async crash(): Promise<Exit> {
    return this.#daemon.crash();
  }

  /** Stops it when it runs, and starts it again. */
  async restart(): Promise<void> {
    await this.#daemon.restart();
  }

  /** Starts it again under a new peer id: nobody remembers anything about it. */
  async reborn(): Promise<void> {
    await this.stop();
    await rm(join(this.#host.dir, 'state/identity.key'), { force: true });
    await this.restart();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#daemon[Symbol.asyncDispose]();
  }
}
