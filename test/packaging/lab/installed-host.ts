// A booted host with our package on it: the command, the units, the status of the daemon.
import assert from 'node:assert/strict';
import type { CommandOptions, CommandResult } from '../../host/lab/run-command.ts';
import { untilTrue } from '../../host/wait.ts';
import type { BootedHost } from './booted-host.ts';

export const SERVICE = 'layerswarm.service';
export const DROP_IN = '/etc/containerd/conf.d/50-layerswarm.toml';
export const CONTAINERD_CONFIG = '/etc/containerd/config.toml';
export const CONTENT = '/var/lib/containerd/io.containerd.content.v1.content';
/** Unpacking 115 MB and the maintainer scripts, on a busy machine; an upgrade waits for the drain too. */
const INSTALL_DEADLINE_MS = 120_000;
const STATUS_DEADLINE_MS = 30_000;

/** The command that setup and teardown print when containerd's restart is left to the operator. */
export function printedRestart(said: string): string {
  const command = /^\s+(systemctl .*\bcontainerd\.service)$/m.exec(said)?.[1];
  assert.ok(command !== undefined, `no restart of containerd in: ${said}`);
  return command;
}

/** What of `layerswarm status --json` the tests read. */
export interface HostStatus {
  readonly state: string;
  readonly pid: number;
  readonly peer_id: string;
  readonly connected_peers: number;
  readonly owned_count: number;
  readonly cache_count: number;
  readonly received_bytes: number;
  /** Blobs held by each connected peer. */
  readonly inventories: readonly number[];
}

/** Our package on one booted host. */
export class InstalledHost {
  readonly host: BootedHost;

  constructor(host: BootedHost) {
    this.host = host;
  }

  /** Installs, upgrades or downgrades by apt, from a file that lies inside; the network is not needed. */
  async apt(deb: string): Promise<string> {
    const flags = ['-y', '--no-install-recommends', '--allow-downgrades'];
    const { stdout, stderr } = await this.host.run(['apt-get', 'install', ...flags, deb], {
      deadline_ms: INSTALL_DEADLINE_MS,
    });
    return stdout + stderr;
  }

  /** `apt-get remove` or `apt-get purge`, however it ends. */
  async aptGet(verb: 'remove' | 'purge'): Promise<CommandResult> {
    return this.host.tryRun(['apt-get', verb, '-y', 'layerswarm'], {
      deadline_ms: INSTALL_DEADLINE_MS,
    });
  }

  /** `rpm` with these arguments, however it ends. Dependencies are Debian's here, so rpm knows none of them. */
  async rpm(...args: readonly string[]): Promise<CommandResult> {
    return this.host.tryRun(['rpm', ...args], { deadline_ms: INSTALL_DEADLINE_MS });
  }

  /** The command, however it ends. */
  async layerswarm(args: readonly string[], options: CommandOptions = {}): Promise<CommandResult> {
    return this.host.tryRun(['layerswarm', ...args], options);
  }

  /** The command; resolves to stdout, rejects with its reason and the daemon's journal for any exit code but 0. */
  async succeed(args: readonly string[]): Promise<string> {
    const result = await this.layerswarm(args);
    if (result.code === 0) return result.stdout;
    const told = `${result.stderr}\n${await this.host.journal(SERVICE, 20)}`;
    return assert.fail(`layerswarm ${args.join(' ')} ended with ${String(result.code)}: ${told}`);
  }

  /** Version dpkg has installed, `''` when it has none. */
  async dpkgStatus(): Promise<string> {
    const query = ['dpkg-query', '-W', '-f', '${db:Status-Abbrev} ${Version}', 'layerswarm'];
    const result = await this.host.tryRun(query);
    return result.code === 0 ? result.stdout.trim() : '';
  }

  async pid(): Promise<number> {
    return this.host.mainPid(SERVICE);
  }

  async status(): Promise<HostStatus> {
    // Its exit code tells the state (alone is not 0); a daemon that does not answer leaves no such object.
    const { stdout, stderr } = await this.layerswarm(['status', '--json']);
    assert.match(stdout, /"state"/, `no status: ${stdout}${stderr}`);
    return readStatus(stdout);
  }

  /** Waits until the daemon is connected to `peers` others and each of them is known to hold at least `blobs` blobs. */
  async meshed(peers: number, blobs = 0): Promise<void> {
    await untilTrue(
      `${this.host.name} in a mesh of ${peers} peers with ${blobs} blobs`,
      async () => {
        const { inventories } = await this.status();
        return inventories.length === peers && inventories.every((held) => held >= blobs);
      },
      { deadline_ms: STATUS_DEADLINE_MS, every_ms: 200 },
    );
  }

  /** sha256 of a file inside. */
  async digest(path: string): Promise<string> {
    return (await this.host.sh(`sha256sum ${path}`)).split(' ')[0]!;
  }

  async exists(path: string): Promise<boolean> {
    return (await this.host.tryRun(['test', '-e', path])).code === 0;
  }

  /** `doctor` finds nothing that has failed; warnings (alone, buffers of this machine's kernel) are allowed. */
  async assertHealthy(): Promise<void> {
    const { code, stdout, stderr } = await this.layerswarm(['doctor']);
    assert.ok(code === 0 || code === 1, `doctor ended with ${String(code)}:\n${stdout}${stderr}`);
  }
}

/** `status --json` speaks in the field names of control.proto; counts may be text where they can pass 2^53. */
interface RawStatus {
  readonly state: string;
  readonly pid: number;
  readonly swarm: {
    readonly peer_id: string;
    readonly connected_peers: number;
    readonly peers: readonly { readonly inventory_blobs: number }[];
  } | null;
  readonly blobs: { readonly owned_count: string; readonly cache_count: string } | null;
  readonly traffic: { readonly received_from_peers_bytes: string } | null;
}

function readStatus(text: string): HostStatus {
  const { state, pid, swarm, blobs, traffic } = JSON.parse(text) as RawStatus;
  return {
    state,
    pid,
    peer_id: swarm?.peer_id ?? '',
    connected_peers: swarm?.connected_peers ?? 0,
    owned_count: Number(blobs?.owned_count ?? 0),
    cache_count: Number(blobs?.cache_count ?? 0),
    received_bytes: Number(traffic?.received_from_peers_bytes ?? 0),
    inventories: (swarm?.peers ?? []).map((peer) => peer.inventory_blobs),
  };
}
