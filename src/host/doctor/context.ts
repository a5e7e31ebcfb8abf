import type { Clock } from '../../base/clock.ts';
import type { Config } from '../../config/schema.ts';
import type { RunProgram } from '../run-program.ts';
import type { RepairDaemon } from '../repair/repair.ts';
import type { ContainerdProbe } from './containerd-process.ts';
import type { Finding } from './finding.ts';

/** What the checks read of the daemon's status; the control door's answer has these fields. */
export type DaemonView = {
  readonly version: string;
  readonly state: string;
  readonly reason: string;
  readonly pid: number;
  readonly uptimeSeconds: number;
  readonly swarm: {
    readonly enabled: boolean;
    /** Since it came up, which is when it read the cluster key; 0 while there is none. */
    readonly uptimeSeconds: number;
    readonly listenAddresses: readonly string[];
    readonly peers: readonly { readonly address: string }[];
    readonly bootstrap: readonly {
      readonly address: string;
      readonly state: string;
      readonly reason: string;
    }[];
  } | null;
  /** What stands against it although it serves. */
  readonly conditions: readonly {
    readonly cause: string;
    readonly what: string;
    readonly mend: readonly string[];
    readonly sinceSeconds: number;
  }[];
  readonly blobs: {
    readonly lostCount: number;
    readonly lost: readonly { readonly digest: string }[];
  } | null;
  readonly containerd: { readonly state: string; readonly reason: string } | null;
};

/** How the daemon answered the one Status call of a run. */
export type DaemonProbe =
  | { readonly kind: 'answers'; readonly view: DaemonView; readonly elapsed_ms: number }
  | {
      readonly kind: 'no-file' | 'refused' | 'no-permission' | 'hangs' | 'broken';
      readonly message: string;
    };

/** What came of asking the daemon for a blob. */
export type BlobProbe =
  | { readonly kind: 'there'; readonly size_bytes: number }
  | { readonly kind: 'missing' }
  | { readonly kind: 'unreadable'; readonly why: string };

/** The daemon's content door, asked as containerd asks it. */
export interface BlobDoor extends Disposable {
  /** Its size, after its last byte was really read. Rejects only when the signal aborts. */
  probe(digest: string, signal: AbortSignal): Promise<BlobProbe>;
  /** All bytes of a small blob. `not_found`, `out_of_range` beyond `max_bytes`. */
  read(digest: string, max_bytes: number, signal: AbortSignal): Promise<Uint8Array>;
}

/** The configuration as the checks use it: where it could not be loaded, what a daemon runs with in its place, else the defaults. */
export type ConfigView = {
  readonly file: string;
  readonly config: Config;
  /** `absent`: no file at the packaged place, so the defaults are in force. */
  readonly state: 'loaded' | 'absent' | 'unusable';
  /** Why it could not be loaded, one problem per entry. */
  readonly problems: readonly string[];
  /** Of an unusable file, what a daemon runs with in its place; undefined when it would not run. */
  readonly instead?: 'last_good' | 'sections';
};

/** What the checks need of the world; the command gives the real one. */
export type DoctorModules = {
  readonly clock: Clock;
  readonly run: RunProgram;
  readonly config: ConfigView;
  /** containerd's configuration file, when the operator named it. */
  readonly containerd_config?: string | undefined;
  readonly fetchStatus: (socket_path: string, signal: AbortSignal) => Promise<DaemonView>;
  /** `unavailable` when no daemon listens. */
  readonly openBlobDoor: (socket_path: string) => Promise<BlobDoor>;
  /** `unavailable` when no daemon listens. */
  readonly openDaemon: (socket_path: string) => Promise<RepairDaemon & Disposable>;
  /** Read every blob that containerd has a record of, to its last byte. */
  readonly read_all: boolean;
  /** Reads and parses the cluster key file and forgets it. `config_invalid` says what is wrong with it. */
  readonly loadClusterKey: (path: string) => Promise<void>;
};

/** What one run of the checks shares: asked once, whoever asks first. */
export type DoctorContext = DoctorModules & {
  /** Never rejects. */
  readonly daemon: () => Promise<DaemonProbe>;
  /** Never rejects. */
  readonly containerd: () => Promise<ContainerdProbe>;
};

/**
 * One check: `gather` looks at the world within `deadline_ms`, `judge` is a pure function of what it saw, so that
 * every verdict can be tested with made-up facts.
 */
export interface Check<F> {
  readonly deadline_ms: number;
  gather(context: DoctorContext, signal: AbortSignal): Promise<F>;
  judge(facts: F): Finding;
}
