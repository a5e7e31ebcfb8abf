// A booted host under soak: the installed package, its containerd, and what this machine can see of both from outside.
import { readFile, readdir, readlink, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { fetchStatus } from '../../src/cli/control-client.ts';
import type { StatusResponse__Output } from '../../src/gen/layerswarm/control/v1/StatusResponse.ts';
import type { AskedContainerd } from '../host/lab/content-oracle.ts';
import { untilTrue } from '../host/wait.ts';
import type { BootedHost } from '../packaging/lab/booted-host.ts';
import { CONTENT, InstalledHost, SERVICE } from '../packaging/lab/installed-host.ts';
import { SuiteContainerd } from '../packaging/lab/suite-containerd.ts';

const SOCKET = '/run/layerswarm/layerswarm.sock';
const CONTAINERD_SOCKET = '/run/containerd/containerd.sock';
const STATUS_DEADLINE_MS = 10_000;
/** Sessions without a waiter linger for two seconds here, and a peer may be slow; this one never ends. */
const REST_DEADLINE_MS = 60_000;
const KIB = 1024;

/** What the kernel counts for one daemon. */
export interface Footprint {
  readonly pid: number;
  readonly rss_bytes: number;
  /** The part of it that is no file's. */
  readonly anon_bytes: number;
  readonly peak_rss_bytes: number;
  readonly fds: number;
  /** Open files that have no name any more. */
  readonly deleted: readonly string[];
}

/** Entries (files, or directories for ingests) and the bytes below one directory. */
interface Room {
  readonly entries: readonly string[];
  readonly bytes: number;
}

/** What lies beside the blobs. */
export interface Rooms {
  readonly staging: Room;
  readonly old_staging: readonly string[];
  readonly quarantine: Room;
  readonly cache: Room;
  readonly ingests: Room;
}

/** Its socket for the content oracle, and the programs for the rest. */
export class SoakedHost {
  readonly host: BootedHost;
  readonly installed: InstalledHost;
  readonly suite: SuiteContainerd;
  /** As the content oracle asks it. */
  readonly containerd: AskedContainerd;

  constructor(host: BootedHost) {
    this.host = host;
    this.installed = new InstalledHost(host);
    this.suite = new SuiteContainerd(host);
    this.containerd = {
      get socket() {
        return host.path(CONTAINERD_SOCKET);
      },
      ctr: async (args) => host.run(['ctr', ...args]),
    };
  }

  get name(): string {
    return this.host.name;
  }

  async status(): Promise<StatusResponse__Output> {
    return fetchStatus(this.host.path(SOCKET), AbortSignal.timeout(STATUS_DEADLINE_MS));
  }

  /** Waits until no blob is on its way any more. */
  async rest(): Promise<void> {
    await untilTrue(
      `${this.name} at rest`,
      async () => {
        const { transfers } = await this.status();
        const { staging, old_staging } = await this.rooms();
        const idle = transfers.every((transfer) => transfer.state !== 'fetching');
        return idle && staging.entries.length === 0 && old_staging.length === 0;
      },
      { deadline_ms: REST_DEADLINE_MS, every_ms: 100 },
    );
  }

  /** The daemon that answers now. */
  async footprint(): Promise<Footprint> {
    const pid = await this.installed.pid();
    const proc = this.host.path(`/proc/${pid}`);
    const text = await readFile(`${proc}/status`, 'utf8');
    const of = (key: string): number =>
      Number(new RegExp(`^${key}:\\s+(\\d+) kB`, 'm').exec(text)![1]) * KIB;
    const fds = await readdir(`${proc}/fd`);
    // What is closed between the list and the look is closed.
    const links = await Promise.all(fds.map((fd) => readlink(`${proc}/fd/${fd}`).catch(() => '')));
    return {
      pid,
      rss_bytes: of('VmRSS'),
      anon_bytes: of('RssAnon'),
      peak_rss_bytes: of('VmHWM'),
      fds: fds.length,
      deleted: links.filter((link) => link.endsWith(' (deleted)')),
    };
  }

  async rooms(): Promise<Rooms> {
    const content = this.host.path(CONTENT);
    const work = join(content, '.layerswarm');
    const old = (await readdir(work)).filter((name) => name.startsWith('staging-old-'));
    return {
      staging: await roomOf(join(work, 'staging')),
      old_staging: old,
      quarantine: await roomOf(join(work, 'quarantine')),
      cache: await roomOf(join(work, 'cache')),
      ingests: {
        ...(await roomOf(join(content, 'ingest'))),
        entries: await readdir(join(content, 'ingest')),
      },
    };
  }

  /** Bytes of blobs that are not whole yet, wherever they wait. */
  async unfinishedBytes(): Promise<number> {
    const { staging, ingests } = await this.rooms();
    return staging.bytes + ingests.bytes;
  }

  /** Processes of the whole host that ended and that nobody has waited for: `pid (name)`. */
  async zombies(): Promise<readonly string[]> {
    const proc = this.host.path('/proc');
    const found: string[] = [];
    for (const pid of (await readdir(proc)).filter((name) => /^\d+$/.test(name))) {
      const line = await readFile(join(proc, pid, 'stat'), 'utf8').catch(() => '');
      const state = /^(\d+ \(.*\)) Z /.exec(line)?.[1];
      if (state !== undefined) found.push(state);
    }
    return found;
  }

  /** What the kernel enforces for the daemon: bytes, or undefined where the unit's limit reached no memory controller. */
  async enforcedLimit(): Promise<number | undefined> {
    const { pid } = await this.footprint();
    const groups = await readFile(this.host.path(`/proc/${pid}/cgroup`), 'utf8');
    const v1 = /^\d+:(?:[^:]*,)?memory(?:,[^:]*)?:(.*)$/m.exec(groups)?.[1];
    const v2 = /^0::(.*)$/m.exec(groups)?.[1] ?? '';
    const files =
      v1 === undefined
        ? [`/sys/fs/cgroup${v2}/memory.max`]
        : [`/sys/fs/cgroup/memory${v1}/memory.limit_in_bytes`];
    for (const file of files) {
      const text = await readFile(this.host.path(file), 'utf8').catch(() => '');
      const bytes = Number(text.trim() === '' ? NaN : text);
      // Without a limit version 1 shows a number near 2^63.
      if (Number.isFinite(bytes) && bytes < 2 ** 50) return bytes;
    }
    return undefined;
  }

  /** SIGKILL to the daemon; resolves when the next one answers. */
  async killDaemon(): Promise<void> {
    const pid = await this.installed.pid();
    await this.host.sh(`kill -KILL ${pid}`);
    await untilTrue(`another daemon on ${this.name}`, async () => {
      if ([0, pid].includes(await this.installed.pid())) return false;
      await this.status();
      return true;
    });
  }

  /** SIGKILL to containerd, and its start again at once, as its unit would after five seconds. */
  async killContainerd(): Promise<void> {
    await this.host.sh(`kill -KILL ${await this.suite.pid()}`);
    await this.suite.restart('systemctl start containerd.service');
  }

  /** Puts a drop-in beside the unit and lines behind the configuration, and starts the daemon anew. */
  async configure(drop_in: string, config: string): Promise<void> {
    const file = `/etc/systemd/system/${SERVICE}.d/60-soak.conf`;
    await this.host.run(['sh', '-c', `mkdir -p \${0%/*}; cat > $0`, file], { input: drop_in });
    await this.host.run(['sh', '-c', 'cat >> /etc/layerswarm/config.toml'], { input: config });
    await this.host.sh(`systemctl daemon-reload; systemctl restart ${SERVICE}`);
  }
}

async function roomOf(path: string): Promise<Room> {
  const names = await readdir(path, { recursive: true }).catch(() => []);
  let bytes = 0;
  const entries: string[] = [];
  for (const name of names) {
    // What goes between the list and the look is gone.
    const found = await stat(join(path, name)).catch(() => undefined);
    if (found?.isFile() !== true) continue;
    entries.push(name);
    bytes += found.size;
  }
  return { entries, bytes };
}
