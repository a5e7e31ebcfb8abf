// Hosts as network namespaces, joined by a bridge that lives in a namespace of its own.
import { nothingStays, somethingStays } from './after-death.ts';
import { LabHost } from './host.ts';
import {
  RUN_PREFIX,
  rememberNamespace,
  removeNamespace,
  shellIn,
  sweepDeadRuns,
} from './residue.ts';
import { runCommand } from './run-command.ts';

/** Hosts one network takes; the last octet of the address counts them. */
const MAX_HOSTS = 250;
let networks = 0;
let swept: Promise<boolean> | undefined;

/**
 * A switched network that exists only in namespaces named `ls<pid>-<n>-…`: the machine's own network gains neither
 * interface nor address nor route. Needs root. Closing it ends every host and removes everything.
 */
export class LabNetwork implements AsyncDisposable {
  readonly prefix: string;
  readonly #bridge: string;
  readonly #hosts: LabHost[] = [];
  #is_closed = false;

  private constructor(prefix: string) {
    this.prefix = prefix;
    this.#bridge = `${prefix}sw`;
  }

  /** Makes the empty network; once per process it first removes what killed runs left behind. */
  static async create(): Promise<LabNetwork> {
    if (process.getuid?.() !== 0)
      throw new Error('host tests make network namespaces: run them as root');
    await (swept ??= sweepDeadRuns());
    networks += 1;
    const network = new LabNetwork(`${RUN_PREFIX}${networks}-`);
    somethingStays();
    try {
      await runCommand(['ip', 'netns', 'add', network.#bridge]);
      // Learning delays would make the first second of every test a lottery.
      const bridge = 'ip link add br0 type bridge forward_delay 0 stp_state 0; ip link set br0 up';
      await shellIn(network.#bridge, `${quiet}; ip link set lo up; ${bridge}`);
      return network;
    } catch (error) {
      await network[Symbol.asyncDispose]();
      throw error;
    }
  }

  get hosts(): readonly LabHost[] {
    return this.#hosts;
  }

  /**
   * Adds a host named `name` (lower-case letters, digits; short). It gets the next address of 10.77.0.0/16, a
   * loopback interface, no IPv6, a mount namespace and a scratch directory.
   */
  async addHost(name: string): Promise<LabHost> {
    if (!/^[a-z][a-z0-9]{0,11}$/.test(name)) throw new Error(`"${name}" is no host name here`);
    if (this.#hosts.length >= MAX_HOSTS) throw new Error(`a lab network takes ${MAX_HOSTS} hosts`);
    const namespace = `${this.prefix}${name}`;
    const number = this.#hosts.length + 1;
    const port = `p${number}`;
    const address = `10.77.0.${number}`;
    await runCommand(['ip', 'netns', 'add', namespace]);
    try {
      await rememberNamespace(namespace);
      const ends = ['eth0', 'netns', namespace, 'type', 'veth', 'peer', 'name', port];
      await runCommand(['ip', 'link', 'add', ...ends, 'netns', this.#bridge]);
      await shellIn(this.#bridge, `ip link set ${port} master br0 up`);
      const up = `ip link set lo up; ip addr add ${address}/16 dev eth0; ip link set eth0 up`;
      await shellIn(namespace, `${quiet}; ${up}`);
      const host = await LabHost.start({ name, namespace, address, bridge: this.#bridge, port });
      this.#hosts.push(host);
      return host;
    } catch (error) {
      await removeNamespace(namespace);
      throw error;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const ends = this.#hosts.splice(0).map((host) => host[Symbol.asyncDispose]());
    const failed = (await Promise.allSettled(ends)).find((end) => end.status === 'rejected');
    await removeNamespace(this.#bridge);
    if (failed === undefined && !this.#is_closed) nothingStays();
    this.#is_closed = true;
    if (failed !== undefined) throw failed.reason as Error;
  }
}

/** Shell line that switches IPv6 off before any interface exists. */
const quiet =
  'for f in all default; do echo 1 > /proc/sys/net/ipv6/conf/$f/disable_ipv6 || true; done';
