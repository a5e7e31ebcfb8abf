/**
 * The roof: builds every room in order, joins them, and closes them in reverse. No logic of its own. Containerd is
 * answered as soon as the store is open; the swarm, which takes longer to load, joins behind it. Nothing but the store and its
 * socket can keep the daemon from serving: what else fails becomes a condition.
 */
import { hostname } from 'node:os';
import type { Clock } from './base/clock.ts';
import { DaemonError, isAbort } from './base/errors.ts';
import { splitHostPort } from './config/keys.ts';
import type { Config } from './config/schema.ts';
import { ContainerdCalls } from './content/containerd-calls.ts';
import { DEFAULT_PREFILL_CONFIG } from './content/prefill.ts';
import { contentService } from './content/service.ts';
import { controlService } from './control/service.ts';
import { daemonStatus } from './daemon-status.ts';
import { swarmConfig } from './daemon-swarm-config.ts';
import type { WiringWatch } from './host/wiring-watch.ts';
import type { Digest } from './oci/digest.ts';
import { Conditions } from './ops/conditions.ts';
import type { Readiness } from './ops/endpoint.ts';
import { LastingEndpoint } from './ops/lasting-endpoint.ts';
import type { Logger } from './ops/logger.ts';
import { ProcessMetrics } from './ops/process-metrics.ts';
import { PrometheusRegister } from './ops/register.ts';
import type { ServiceManager } from './ops/systemd.ts';
import { createPullMetrics } from './pull/metrics.ts';
import { Pulls, type ReadBlob } from './pull/pulls.ts';
import { type Listening, listen, openSocket } from './rpc/listen.ts';
import type { OpenSocket } from './rpc/open-socket.ts';
import { LocalStore } from './store/local-store.ts';
import type { LostBlob } from './store/blob-store.ts';
import { storeConfig } from './store/store-config.ts';
import { watchWiring } from './containerd-watch.ts';
import { type StartSwarm, startSwarm, SwarmSupervisor } from './swarm-supervisor.ts';

/** How often lost blobs are looked for again among the peers, and systemd's status line is renewed, in ms. */
const ROUND_MS = 5_000;
/** For the calls that came in the last moment before the socket closed, in ms. */
const LAST_CALLS_MS = 500;
/** How long calls that waited for the socket have the process to themselves, in ms: loading the swarm blocks it for longer. */
const SWARM_DELAY_MS = 50;

export type DaemonModules = {
  readonly clock: Clock;
  readonly logger: Logger;
  readonly service: ServiceManager;
  readonly version: string;
  /** A listening socket that systemd handed over. */
  readonly socket_fd: number | undefined;
  /** Starts the swarm; the real one unless a test says otherwise. */
  readonly startSwarm?: StartSwarm;
};

/** A running daemon. Disposing it without `drain` ends calls at once. */
export class Daemon implements AsyncDisposable {
  readonly #modules: DaemonModules;
  readonly #config: Config;
  readonly #register = new PrometheusRegister();
  readonly #conditions: Conditions;
  readonly #stop = new AbortController();
  readonly #parts = new AsyncDisposableStack();
  readonly #loops: Promise<void>[] = [];
  readonly #failed = Promise.withResolvers<never>();
  #state: 'starting' | 'running' | 'draining' = 'starting';
  #swarm: SwarmSupervisor | undefined;
  #wiring: WiringWatch | undefined;
  #listening: Listening | undefined;
  #endpoint: LastingEndpoint | undefined;

  private constructor(modules: DaemonModules, config: Config) {
    this.#modules = modules;
    this.#config = config;
    const { clock } = modules;
    this.#conditions = new Conditions({
      clock,
      logger: this.#log('ops'),
      register: this.#register,
    });
    // Looked at by whoever runs the daemon; a failure before that must not count as unhandled.
    this.#failed.promise.catch(() => undefined);
  }

  /** Starts everything; a failure leaves nothing behind. DaemonErrors of the rooms pass through. */
  static async start(modules: DaemonModules, config: Config): Promise<Daemon> {
    const daemon = new Daemon(modules, config);
    try {
      await daemon.#build();
    } catch (error) {
      await daemon[Symbol.asyncDispose]();
      throw error;
    }
    return daemon;
  }

  /** Rejects when a background loop fails; never resolves. */
  get failed(): Promise<never> {
    return this.#failed.promise;
  }

  /** Port of the metrics endpoint; undefined without one. */
  get metrics_port(): number | undefined {
    return this.#endpoint?.port;
  }

  /** What stands against this daemon; who finds something says it here. */
  get conditions(): Conditions {
    return this.#conditions;
  }

  /** Resolves when the swarm and the metrics endpoint were tried for the first time, where there are any. */
  get settled(): Promise<unknown> {
    return Promise.all([this.#swarm?.tried, this.#endpoint?.tried]);
  }

  readiness(): Readiness {
    if (this.#state !== 'running') return { state: this.#state };
    const [condition] = this.#conditions.list();
    if (condition !== undefined) return { state: 'degraded', reason: condition.what };
    if (this.#swarm === undefined) return { state: 'alone', reason: 'swarm.enabled is false' };
    const swarm = this.#swarm.status();
    if (swarm === undefined) {
      return { state: 'starting', reason: 'containerd is served, the swarm is loading' };
    }
    if (swarm.state !== 'degraded') return { state: swarm.state };
    return { state: 'degraded', reason: 'some bootstrap addresses lead to no peer' };
  }

  /**
   * Serves on until no call is under way, up to the configured time, then leaves the swarm, and only then takes no more calls: so that
   * who takes over the socket finds the callers of the last moment only. containerd gives a new connection one second.
   */
  async drain(): Promise<void> {
    this.#state = 'draining';
    await this.#modules.service.stopping();
    const is_quiet = await this.#listening?.quiet(this.#config.content.drain_ms);
    if (is_quiet === true) await this.#swarm?.leave();
    await this.#listening?.drain(is_quiet === true ? LAST_CALLS_MS : 0);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#state = 'draining';
    await this.#listening?.drain(0);
    this.#stop.abort(new DaemonError('cancelled', 'the daemon stops'));
    await this.#parts.disposeAsync();
  }

  async #build(): Promise<void> {
    const { clock, version } = this.#modules;
    const config = this.#config;
    const started_ms = clock.now_ms();
    // First of all: clients that connect while the store opens are greeted, and wait.
    const socket = await this.#openSocket();
    this.#openEndpoint();
    const store = await this.#openStore();
    // Rooms close before the loops they feed are waited for, and the store after all of them.
    this.#parts.defer(async () => {
      await Promise.all(this.#loops);
    });
    this.#swarm = this.#openSwarm(store);
    this.#parts.defer(() => this.#swarm?.leave());
    const pulls = this.#openPulls(store);
    const calls = new ContainerdCalls({ clock });
    const wiring = (this.#wiring = watchWiring(
      {
        ...{ clock, store, calls, conditions: this.#conditions },
        ...{ logger: this.#log('wiring'), register: this.#register },
      },
      config.store,
    ));
    const content = contentService(
      {
        catalog: store,
        ingests: store,
        pull: pulls,
        calls,
        clock,
        logger: this.#log('content'),
        register: this.#register,
      },
      { ...DEFAULT_PREFILL_CONFIG, sharing_policy: config.content.sharing_policy },
    );
    const control = controlService({
      status: () =>
        daemonStatus(
          {
            clock,
            store,
            pulls,
            swarm: this.#swarm,
            conditions: this.#conditions,
            totals: this.#register,
            calls,
            wiring: () => wiring.wiring,
            readiness: () => this.readiness(),
            version,
            started_ms,
          },
          config,
        ),
      check: (digest, limits) => store.check(digest, limits),
      forgetLost: (digest) => store.forgetLost(digest),
    });
    this.#listening = await listen(
      {
        table: new Map([...content, ...control]),
        logger: this.#log('rpc'),
        register: this.#register,
        server: config.content.server,
        clock,
      },
      socket,
    );
    this.#parts.use(this.#listening);
    // From here on containerd is served; what follows makes it faster.
    this.#state = 'running';
    await this.#modules.service.ready('serving containerd');
    this.#loop('store', (signal) => store.run({ signal }));
    this.#loop('wiring', (signal) => wiring.run(signal));
    this.#loop('watchdog', (signal) => this.#modules.service.watchdog(signal));
    this.#loop('swarm', (signal) => this.#joinSwarm(pulls, store, signal));
    this.#loop('rounds', (signal) => this.#rounds(store, pulls, signal));
  }

  async #openSocket(): Promise<OpenSocket> {
    const { socket_path, server } = this.#config.content;
    const { socket_fd } = this.#modules;
    const socket = await openSocket(
      { logger: this.#log('rpc'), server },
      { socket_path, ...(socket_fd !== undefined && { socket_fd }) },
    );
    return this.#parts.use(socket);
  }

  #openEndpoint(): void {
    const measured = this.#parts.use(new ProcessMetrics(this.#register));
    const address = splitHostPort(this.#config.metrics.listen);
    if (address === undefined) return;
    const modules = {
      exposition: this.#register,
      readiness: () => this.readiness(),
      loopLag_ms: () => measured.loopLag_ms(),
      register: this.#register,
      logger: this.#log('ops'),
      clock: this.#modules.clock,
      conditions: this.#conditions,
    };
    const endpoint = this.#parts.use(new LastingEndpoint(modules, address));
    this.#endpoint = endpoint;
    // Nobody waits for it: it answers while the store opens, and containerd is served when it never does.
    this.#loop('metrics', (signal) => endpoint.run(signal));
  }

  async #openStore(): Promise<LocalStore> {
    const { clock, logger } = this.#modules;
    const { work_directory, ...given } = this.#config.store;
    return this.#parts.use(
      await LocalStore.open(
        { clock, logger, register: this.#register },
        storeConfig({ ...given, ...(work_directory !== '' && { work_directory }) }),
      ),
    );
  }

  #openPulls(store: LocalStore): Pulls {
    const read: ReadBlob = async (digest, { max_bytes }) => {
      const size = store.info(digest)?.size_bytes;
      if (size === undefined || size > max_bytes) return undefined;
      return (await store.open(digest)).read(0, size);
    };
    const pulls = new Pulls(
      {
        store,
        finder: this.#swarm ?? { find: () => [] },
        read,
        clock: this.#modules.clock,
        logger: this.#log('pull'),
        metrics: createPullMetrics(this.#register),
      },
      this.#config.pull,
    );
    return this.#parts.use(pulls);
  }

  #openSwarm(store: LocalStore): SwarmSupervisor | undefined {
    if (!this.#config.swarm.enabled) return undefined;
    return new SwarmSupervisor(
      {
        store,
        clock: this.#modules.clock,
        logger: this.#log('swarm'),
        register: this.#register,
        conditions: this.#conditions,
        start: this.#modules.startSwarm ?? startSwarm,
      },
      swarmConfig(this.#config, {
        host_name: hostname(),
        software_version: this.#modules.version,
      }),
    );
  }

  /** Not at once: what waited for the socket goes first. */
  async #joinSwarm(pulls: Pulls, store: LocalStore, signal: AbortSignal): Promise<void> {
    if (this.#swarm === undefined) return;
    const heal = ({ digest, size_bytes }: LostBlob): void => this.#heal(pulls, digest, size_bytes);
    this.#parts.defer(store.onLost(heal));
    await this.#modules.clock.sleep(SWARM_DELAY_MS, { signal });
    // Peers hear of all blobs at once, and not of one after another.
    await store.scanned({ signal });
    await this.#swarm.run(signal, () => {
      for (const lost of store.lost()) heal(lost);
      for (const { digest } of pulls.status()) pulls.sourcesChanged(digest);
    });
  }

  /** Under another content store a lost blob is that store's to bring back, and `blobs/` is not ours to write. */
  #heal(pulls: Pulls, digest: Digest, size_bytes: number): void {
    if (this.#wiring?.wiring.state !== 'not_wired') pulls.heal(digest, size_bytes);
  }

  /** What has no event of its own: systemd's status line, what peers hear of our disk, and lost blobs that a peer may have by now. */
  async #rounds(store: LocalStore, pulls: Pulls, signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      for (const { digest, size_bytes } of store.lost()) this.#heal(pulls, digest, size_bytes);
      this.#swarm?.setDiskFull(store.disk_low);
      const peers = this.#swarm?.status()?.peers.length ?? 0;
      const causes = this.#conditions.list().map(({ cause }) => cause);
      const why = causes.length === 0 ? '' : ` (${causes.join(', ')})`;
      await this.#modules.service.status(`${this.readiness().state}${why}, ${peers} peers`);
      await this.#modules.clock.sleep(ROUND_MS, { signal });
    }
  }

  /** Runs a background loop until the daemon stops; its failure is the daemon's. */
  #loop(name: string, run: (signal: AbortSignal) => Promise<void>): void {
    const { signal } = this.#stop;
    this.#loops.push(
      run(signal).catch((error: unknown) => {
        if (signal.aborted || isAbort(error)) return;
        this.#modules.logger.error({ err: error, loop: name }, 'background work failed');
        this.#failed.reject(error);
      }),
    );
  }

  #log(room: string): Logger {
    return this.#modules.logger.child({ room });
  }
}
