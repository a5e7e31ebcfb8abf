// A host that boots: a whole Debian with systemd as process 1, in the namespaces of a lab host, thrown away afterwards.
import { createHash } from 'node:crypto';
import { copyFile, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { LabHost } from '../../host/lab/host.ts';
import type { LabProcess } from '../../host/lab/process.ts';
import { runCommand, tryCommand } from '../../host/lab/run-command.ts';
import type { CommandOptions, CommandResult } from '../../host/lab/run-command.ts';
import { untilTrue } from '../../host/wait.ts';
import { baseTree } from './base-tree.ts';
import type { BootedSuite } from './base-tree.ts';

/** A boot takes 2 s on an idle machine. */
const BOOT_DEADLINE_MS = 60_000;
/** systemd gives a unit 90 s to stop before it kills it; nothing here should need half of that. */
const POWEROFF_DEADLINE_MS = 45_000;
/** What `systemctl is-system-running` says once every unit of the boot has been started or has failed. */
const BOOTED = ['running', 'degraded'];

/** The only environment of commands inside: a root login's, nothing of the machine's own. */
const ENVIRONMENT = [
  'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
  'HOME=/root',
  'LANG=C.UTF-8',
  'DEBIAN_FRONTEND=noninteractive',
  'SYSTEMD_PAGER=',
];

/**
 * What nspawn's own system call filter takes away and a container runtime needs (keyrings); the capability is for the loopback
 * interface of containers. Without registration, because the machine itself may have no systemd.
 */
const NSPAWN = [
  ...['systemd-nspawn', '--quiet', '--boot', '--register=no', '--keep-unit', '--link-journal=no'],
  ...['--resolv-conf=off', '--timezone=off', '--capability=CAP_NET_ADMIN'],
  '--system-call-filter=@keyring bpf',
];

/**
 * A Debian suite booted on a lab host: network, address and link are the lab host's, files are a layer of its own over the
 * suite's base tree. The files outlive `powerOff` and `boot` (a reboot); closing it ends it and forgets them.
 */
export class BootedHost implements AsyncDisposable {
  readonly suite: BootedSuite;
  readonly lab: LabHost;
  readonly #root: string;
  readonly #data: string;
  #process: LabProcess | undefined;
  #leader = 0;
  #boots = 0;

  private constructor(lab: LabHost, suite: BootedSuite) {
    this.lab = lab;
    this.suite = suite;
    this.#root = join(lab.dir, 'tree/root');
    this.#data = join(lab.dir, 'tree/containerd');
  }

  /** Makes the files of a new host and boots it. */
  static async boot(lab: LabHost, suite: BootedSuite): Promise<BootedHost> {
    const host = new BootedHost(lab, suite);
    await host.#makeTree(await baseTree(suite));
    try {
      await host.boot();
      return host;
    } catch (error) {
      await host[Symbol.asyncDispose]();
      throw error;
    }
  }

  get name(): string {
    return this.lab.name;
  }

  get address(): string {
    return this.lab.address;
  }

  /** Where this machine finds a file, socket or directory of the host while it runs, also in its /proc. */
  path(inside: string): string {
    if (this.#process?.running !== true) throw new Error(`${this.name} is not running`);
    return `/proc/${this.#leader}/root${inside}`;
  }

  /** Boots the tree as it is; resolves when systemd has started everything. Rejects with the end of the console. */
  async boot(): Promise<void> {
    this.#boots += 1;
    const { namespace } = this.lab;
    const nspawn = [
      ...NSPAWN,
      `--directory=${this.#root}`,
      `--machine=${namespace}`,
      // containerd's snapshots are overlays, and an overlay cannot lie on one.
      `--bind=${this.#data}:/var/lib/containerd`,
    ];
    // A process namespace around nspawn makes the end certain: killed alone, nspawn leaves its container running.
    const apart = ['unshare', '--pid', '--fork', '--kill-child', '--mount-proc', '--'];
    const argv = [...apart, 'sh', '-euc', OWN_CGROUP, namespace, ...nspawn];
    const console_log = `console-${this.#boots}`;
    this.#process = await this.lab.spawn(console_log, argv);
    await this.#process.ready(async () => this.#isUp(), { deadline_ms: BOOT_DEADLINE_MS });
    await this.sh(WRITABLE_CGROUPS);
  }

  /** `systemctl poweroff`; resolves when everything has stopped in order. */
  async powerOff(): Promise<void> {
    const running = this.#process;
    if (running === undefined) return;
    await this.tryRun(['systemctl', 'poweroff']);
    await untilTrue(`${this.name} is off`, () => !running.running, {
      deadline_ms: POWEROFF_DEADLINE_MS,
    });
    this.#process = undefined;
  }

  /** The same files, booted again. */
  async reboot(): Promise<void> {
    await this.powerOff();
    await this.boot();
  }

  /** Runs a command inside to its end; exit codes other than 0 reject with `CommandError`. */
  async run(argv: readonly string[], options: CommandOptions = {}): Promise<CommandResult> {
    return runCommand(this.#inside(argv), options);
  }

  /** Like `run`, but every exit code resolves. */
  async tryRun(argv: readonly string[], options: CommandOptions = {}): Promise<CommandResult> {
    return tryCommand(this.#inside(argv), options);
  }

  /** Runs a shell script inside; resolves to its stdout without the last line's end. */
  async sh(script: string, options: CommandOptions = {}): Promise<string> {
    return (await this.run(['sh', '-euc', script], options)).stdout.trimEnd();
  }

  /** Property of a unit, as `systemctl show` says it. */
  async property(unit: string, name: string): Promise<string> {
    return this.sh(`systemctl show --value --property=${name} ${unit}`);
  }

  /** Main process of a unit, as a pid inside; 0 when there is none. */
  async mainPid(unit: string): Promise<number> {
    return Number(await this.property(unit, 'MainPID'));
  }

  /** Units that have failed; none is the normal answer. */
  async failedUnits(): Promise<string> {
    return this.sh('systemctl --failed --no-legend --plain');
  }

  /** The journal of a unit since boot, its end. */
  async journal(unit: string, lines = 60): Promise<string> {
    return this.sh(`journalctl --no-pager --boot --unit=${unit} --lines=${lines}`);
  }

  /** Copies a file of this machine to `/root/<name>` inside; resolves to that path. */
  async take(source: string, name: string): Promise<string> {
    // Through the data directory: it is the one part of the tree that both sides can reach while the host runs.
    await copyFile(source, join(this.#data, name));
    await this.sh(`mv /var/lib/containerd/${name} /root/${name}`);
    return `/root/${name}`;
  }

  /** Ends it at once, whatever it does: its files are thrown away with the lab host. */
  async [Symbol.asyncDispose](): Promise<void> {
    const running = this.#process;
    this.#process = undefined;
    running?.kill('SIGKILL');
    await running?.exited;
  }

  async #makeTree(base: string): Promise<void> {
    const tree = join(this.lab.dir, 'tree');
    const layers = `lowerdir=${base},upperdir=${tree}/upper,workdir=${tree}/work`;
    const machine_id = createHash('md5').update(this.lab.namespace).digest('hex');
    // Mounted in the lab host's mount namespace, which takes the mounts along when it ends. nspawn keeps locks and
    // a propagation directory in /run that it does not remove; they vanish with a /run of their own.
    const script = `
      mkdir -p ${tree}/upper ${tree}/work ${tree}/root ${tree}/containerd
      mount -t tmpfs lab /run
      mount -t overlay lab -o ${layers} ${tree}/root
      echo ${this.name} > ${tree}/root/etc/hostname
      echo ${machine_id} > ${tree}/root/etc/machine-id`;
    await this.lab.run(['sh', '-euc', script]);
  }

  async #isUp(): Promise<boolean> {
    const nspawn = await onlyChild(this.#process!.pid);
    this.#leader = await onlyChild(nspawn);
    const { stdout } = await this.tryRun(['systemctl', 'is-system-running'], { deadline_ms: 5000 });
    return BOOTED.includes(stdout.trim());
  }

  #inside(argv: readonly string[]): string[] {
    if (this.#process?.running !== true) throw new Error(`${this.name} is not running`);
    const spaces = ['-m', '-u', '-i', '-n', '-p', '-C'];
    return [
      'nsenter',
      '-t',
      `${this.#leader}`,
      ...spaces,
      '--',
      'env',
      '-i',
      ...ENVIRONMENT,
      ...argv,
    ];
  }
}

/**
 * Puts the shell into a cgroup called $0 and becomes "$@". Two hosts in one cgroup would be one tree to both of
 * their systemds. Where the hierarchies are still split only systemd's own are touched.
 */
const OWN_CGROUP = `
  for root in /sys/fs/cgroup /sys/fs/cgroup/systemd /sys/fs/cgroup/unified; do
    [ -e $root/cgroup.procs ] || continue
    mkdir -p $root/$0
    echo 0 > $root/$0/cgroup.procs
  done
  exec "$@"`;

/** nspawn shows the split hierarchies read-only; runc makes a group in each. Fails where there are none. */
const WRITABLE_CGROUPS = `
  [ -e /sys/fs/cgroup/cgroup.procs ] ||
    for root in /sys/fs/cgroup/*/; do mount -o remount,rw,bind $root || true; done`;

async function onlyChild(pid: number): Promise<number> {
  const child = Number(await readFile(`/proc/${pid}/task/${pid}/children`, 'utf8'));
  if (!(child > 0)) throw new Error(`process ${pid} has not exactly one child`);
  return child;
}
