// One host of the lab: namespaces, a scratch directory, its link, and everything that runs on it.
import { mkdir, rm, rmdir } from 'node:fs/promises';
import { join } from 'node:path';
import { DelayLine } from './delay-line.ts';
import { LabProcess } from './process.ts';
import {
  SHIM_SOCKETS,
  killNamespace,
  removeCgroups,
  removeNamespace,
  removeShimSockets,
  scratchDir,
  shellIn,
} from './residue.ts';
import { runCommand, tryCommand } from './run-command.ts';
import type { CommandOptions, CommandResult } from './run-command.ts';

interface HostSpec {
  readonly name: string;
  readonly namespace: string;
  readonly address: string;
  readonly bridge: string;
  readonly port: string;
}

/** What a link does to traffic in both directions. */
export interface LinkShape {
  /** Bits per second. */
  readonly rate_bits?: number;
  /**
   * One-way delay added in each direction, in ms. Where the kernel has no netem a program delays (`DelayLine`, which needs Go to be
   * built once), and the host can be neither silenced nor unplugged meanwhile.
   */
  readonly delay_ms?: number;
}

/**
 * A host: network namespace (reachable at `address` from the other hosts), mount namespace with a private
 * /run/containerd, scratch directory `dir` (in the machine's own file system, so sockets in it can be reached from
 * the test). Made by `LabNetwork.addHost`, ended by it.
 */
export class LabHost implements AsyncDisposable {
  readonly name: string;
  readonly namespace: string;
  readonly address: string;
  readonly dir: string;
  readonly #spec: HostSpec;
  readonly #holder: LabProcess;
  readonly #processes = new Set<LabProcess>();
  #delay: DelayLine | undefined;

  private constructor(spec: HostSpec, dir: string, holder: LabProcess) {
    this.name = spec.name;
    this.namespace = spec.namespace;
    this.address = spec.address;
    this.dir = dir;
    this.#spec = spec;
    this.#holder = holder;
  }

  /** Used by `LabNetwork`: the network namespace exists already and is removed by its caller when this fails. */
  static async start(spec: HostSpec): Promise<LabHost> {
    const dir = await scratchDir(spec.name);
    try {
      // Twice: another run that ends may remove the empty directory in between.
      const mount = `mkdir -p ${SHIM_SOCKETS}; mount -t tmpfs lab ${SHIM_SOCKETS}`;
      const script = `{ ${mount}; } || { ${mount}; }; mkdir ${dir}/up; exec sleep infinity`;
      const holder = await LabProcess.start({
        name: `namespaces of ${spec.name}`,
        log: join(dir, 'holder.log'),
        argv: [
          ...['nsenter', `--net=/run/netns/${spec.namespace}`, '--'],
          ...['unshare', '--mount', '--propagation', 'private', '--', 'sh', '-euc', script],
        ],
      });
      const marked = async () => {
        await rmdir(join(dir, 'up'));
        return true;
      };
      await holder.ready(marked, { deadline_ms: 10_000 });
      return new LabHost(spec, dir, holder);
    } catch (error) {
      await rm(dir, { recursive: true, force: true });
      throw error;
    }
  }

  /** `argv` as it runs on this host: one exec chain, so the resulting pid is the program's own. */
  wrap(argv: readonly string[]): string[] {
    const namespaces = [
      `--net=/run/netns/${this.namespace}`,
      `--mount=/proc/${this.#holder.pid}/ns/mnt`,
    ];
    return ['nsenter', ...namespaces, '--', ...argv];
  }

  /** Starts a long-running program here; its log is `<dir>/<name>.log`. It ends with the host at the latest. */
  async spawn(
    name: string,
    argv: readonly string[],
    options: { readonly env?: Readonly<Record<string, string>> } = {},
  ): Promise<LabProcess> {
    const log = join(this.dir, `${name}.log`);
    const child = await LabProcess.start({
      name: `${name} on ${this.name}`,
      argv: this.wrap(argv),
      log,
      ...options,
    });
    this.#processes.add(child);
    void child.exited.then(() => this.#processes.delete(child));
    return child;
  }

  /** Runs a command here to its end; exit codes other than 0 reject with `CommandError`. */
  async run(argv: readonly string[], options: CommandOptions = {}): Promise<CommandResult> {
    return runCommand(this.wrap(argv), options);
  }

  /** Like `run`, but every exit code resolves. */
  async tryRun(argv: readonly string[], options: CommandOptions = {}): Promise<CommandResult> {
    return tryCommand(this.wrap(argv), options);
  }

  /** A directory `<dir>/<name>`, made when it is not there. */
  async directory(name: string): Promise<string> {
    const path = join(this.dir, name);
    await mkdir(path, { recursive: true });
    return path;
  }

  /** Shapes the link; an empty shape takes the shaping away. Rejects when the kernel lacks the discipline. */
  async shape(shape: LinkShape): Promise<void> {
    const { rate_bits, delay_ms = 0 } = shape;
    await this.#delay?.[Symbol.asyncDispose]();
    this.#delay = undefined;
    if (delay_ms > 0 && !(await hasNetem(this.namespace))) {
      const { bridge, port } = this.#spec;
      this.#delay = await DelayLine.start({ bridge, port, dir: this.dir, delay_ms });
      await this.#discipline(rate_bits, 0);
      return;
    }
    await this.#discipline(rate_bits, delay_ms);
  }

  async #discipline(rate_bits: number | undefined, delay_ms: number): Promise<void> {
    for (const [namespace, device] of this.#ends()) {
      await tryCommand(['tc', '-n', namespace, 'qdisc', 'del', 'dev', device, 'root']);
      const discipline = disciplineOf(rate_bits, delay_ms);
      if (discipline === undefined) continue;
      await runCommand([
        'tc',
        '-n',
        namespace,
        'qdisc',
        'add',
        'dev',
        device,
        'root',
        ...discipline,
      ]).catch((error: unknown) => {
        const kind = discipline[0]!;
        throw new Error(`this kernel cannot shape with ${kind} (sch_${kind} is missing)`, {
          cause: error,
        });
      });
    }
  }

  /** Bytes of all frames that left this host, by the counter of its interface. */
  async sentBytes(): Promise<number> {
    const shown = await runCommand([
      'ip',
      '-n',
      this.namespace,
      '-s',
      '-j',
      'link',
      'show',
      'eth0',
    ]);
    const [link] = JSON.parse(shown.stdout) as readonly { stats64: { tx: { bytes: number } } }[];
    return link!.stats64.tx.bytes;
  }

  /** The host falls silent: its switch port drops every frame, both ways, and neither side sees a link change. */
  async silence(): Promise<void> {
    await shellIn(this.#spec.bridge, `bridge link set dev ${this.#spec.port} state 0`);
  }

  /** Pulls the plug: the host sees its carrier go. */
  async unplug(): Promise<void> {
    await shellIn(this.#spec.bridge, `ip link set ${this.#spec.port} down`);
  }

  /** Undoes `silence` and `unplug`. */
  async plug(): Promise<void> {
    const { bridge, port } = this.#spec;
    // The port takes a state only once the kernel has seen its carrier, some moments after "up".
    const state = `bridge link set dev ${port} state 3`;
    const tries = `for i in 1 2 3 4 5 6 7 8 9 10; do ${state} 2>/dev/null && exit 0; sleep 0.1; done; ${state}`;
    await shellIn(bridge, `ip link set ${port} up; ${tries}`);
  }

  /**
   * Drops UDP that arrives here (a network that knows only TCP, seen by every sender as silence), or lets it through
   * again. For a link without any UDP call it on every host.
   */
  async dropUdp(drop: boolean): Promise<void> {
    await tryCommand(['ip', '-n', this.namespace, 'rule', 'del', 'pref', '5']);
    if (!drop) return;
    // A routing rule works on every kernel, packet filters need modules. It must come before the local table, and the
    // shortcut for connected sockets would go round it.
    const local =
      'ip rule del pref 100 || true; ip rule add pref 100 table local; ip rule del pref 0 || true';
    const shortcut = 'echo 0 > /proc/sys/net/ipv4/udp_early_demux';
    const rule = 'ip rule add pref 5 iif eth0 ipproto udp blackhole';
    await shellIn(this.namespace, `${shortcut}; ${rule}; ${local}`);
  }

  /** Ends every process here and removes the namespaces, cgroups and the scratch directory. */
  async [Symbol.asyncDispose](): Promise<void> {
    const stops = [...this.#processes].map((child) => child.stop());
    await Promise.allSettled(stops);
    await this.#delay?.[Symbol.asyncDispose]().catch(() => undefined);
    await killNamespace(this.namespace);
    await removeNamespace(this.namespace);
    await removeCgroups(this.namespace);
    await rm(this.dir, { recursive: true, force: true });
    await removeShimSockets();
  }

  #ends(): readonly (readonly [string, string])[] {
    return [
      [this.namespace, 'eth0'],
      [this.#spec.bridge, this.#spec.port],
    ];
  }
}

/** Whether this kernel delays by itself; tried on the loopback interface of a host, where nothing is shaped. */
async function hasNetem(namespace: string): Promise<boolean> {
  const netem = [
    'tc',
    '-n',
    namespace,
    'qdisc',
    'add',
    'dev',
    'lo',
    'root',
    'netem',
    'delay',
    '1ms',
  ];
  if ((await tryCommand(netem)).code !== 0) return false;
  await tryCommand(['tc', '-n', namespace, 'qdisc', 'del', 'dev', 'lo', 'root']);
  return true;
}

function disciplineOf(rate?: number, delay_ms?: number): string[] | undefined {
  if (delay_ms !== undefined && delay_ms > 0) {
    const limit = rate === undefined ? [] : ['rate', `${rate}bit`];
    return ['netem', 'delay', `${delay_ms}ms`, 'limit', '100000', ...limit];
  }
  if (rate === undefined) return undefined;
  // A bucket smaller than 10 ms of traffic would never reach the rate at the kernel's tick.
  const burst = Math.max(64 * 1024, Math.ceil(rate / 8 / 100));
  return ['tbf', 'rate', `${rate}bit`, 'burst', `${burst}`, 'latency', '50ms'];
}
