// A wire that takes its time, where the kernel has no netem: a program between a host's switch port and the bridge.
import { join } from 'node:path';
import { builtDelay } from './go-programs.ts';
import { LabProcess } from './process.ts';
import { shellIn } from './residue.ts';

/** Where a delay line stands. */
interface DelaySpec {
  /** Network namespace of the bridge `br0`. */
  readonly bridge: string;
  /** The host's port there. */
  readonly port: string;
  /** Directory of its log. */
  readonly dir: string;
  /** One-way delay, in both directions. */
  readonly delay_ms: number;
}

/** Stands until it is closed, which puts the port back on the bridge. */
export class DelayLine implements AsyncDisposable {
  readonly #spec: DelaySpec;
  readonly #process: LabProcess;

  private constructor(spec: DelaySpec, child: LabProcess) {
    this.#spec = spec;
    this.#process = child;
  }

  /** Resolves when frames pass. The program is built when it is not in the cache. */
  static async start(spec: DelaySpec): Promise<DelayLine> {
    const { bridge, port, dir, delay_ms } = spec;
    const inside = ['nsenter', `--net=/run/netns/${bridge}`, '--'];
    const child = await LabProcess.start({
      name: `delay of ${port}`,
      argv: [...inside, await builtDelay(), port, 'br0', `${delay_ms}`],
      log: join(dir, `delay-${(lines += 1)}.log`),
    });
    await child.ready(async () => (await child.tail()).startsWith('up'), { deadline_ms: 10_000 });
    return new DelayLine(spec, child);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#process.stop(0);
    const { bridge, port } = this.#spec;
    await shellIn(bridge, `ip link set ${port} master br0 up; bridge link set dev ${port} state 3`);
  }
}

let lines = 0;
