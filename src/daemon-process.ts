import { systemClock } from './base/clock.ts';
import { DaemonError } from './base/errors.ts';
import type { ServiceConfig } from './config/service-config.ts';
import { Daemon } from './daemon.ts';
import { createLogger, type Logger } from './ops/logger.ts';
import { createServiceManager, inheritedSocketFd, type ServiceEnvironment } from './ops/systemd.ts';
import { STATUS } from './rpc/status.ts';
import { takenBySwarm } from './swarm-life.ts';
import type { StartSwarm } from './swarm-supervisor.ts';

/** After the drain: how long closing may take before the process ends without it, in ms. */
const CLOSE_MS = 10_000;
/** The same after a defect: what is open then is left to the kernel, and the next start puts it in order. In ms. */
const DEFECT_CLOSE_MS = 2_000;

type Options = {
  readonly version: string;
  readonly environment: ServiceEnvironment;
  /** Starts the swarm; the real one unless a test says otherwise. */
  readonly startSwarm?: StartSwarm;
};

type Why = 'signal' | 'defect';

/**
 * The daemon as a process: starts it, waits for SIGTERM or SIGINT, drains, closes, and resolves to the exit code. A second signal ends
 * it at once. An error that nobody caught costs the swarm where it happened there; anywhere else it is a defect, which ends the
 * process with 70 within seconds whatever else fails, so that the service manager starts it anew.
 */
export async function runDaemon(service_config: ServiceConfig, options: Options): Promise<number> {
  const { config } = service_config;
  const { version, environment, startSwarm } = options;
  const logger = createLogger(config.log);
  const clock = systemClock;
  const { ended, onDefect } = watchProcess(logger);
  try {
    const socket_fd = inheritedSocketFd(environment);
    const service = createServiceManager({ clock, logger }, environment);
    const modules = { clock, logger, service, version, socket_fd };
    const daemon = await Daemon.start(
      { ...modules, ...(startSwarm !== undefined && { startSwarm }) },
      config,
    );
    daemon.failed.catch(onDefect);
    if (service_config.problems.length > 0) {
      daemon.conditions.raise('config', configCondition(service_config));
    }
    const kept = service_config.keep().catch((err: unknown) => {
      // It serves; what is missing is missed on the day somebody breaks the file.
      logger.warn({ err }, 'cannot keep a copy of the configuration');
    });
    await Promise.race([Promise.all([kept, daemon.settled]), ended]);
    logger.info({ version, pid: process.pid, metrics_port: daemon.metrics_port }, 'daemon started');
    const why = await ended;
    if (why === 'signal') {
      await Promise.race([daemon.drain(), daemon.failed.catch(() => undefined)]);
      await close(daemon, CLOSE_MS);
    } else {
      // No drain: it would trust a broken process with containerd's calls.
      await close(daemon, DEFECT_CLOSE_MS).catch((err: unknown) => {
        logger.error({ err }, 'not closed in order after the defect');
      });
    }
    logger.info({}, 'daemon ended');
    return why === 'signal' ? 0 : STATUS.internal.exit;
  } finally {
    // Timers and sockets of libraries must not keep an ended daemon alive. By then the caller has set the exit code.
    setImmediate(() => process.exit());
  }
}

/** `deadline_exceeded` when it takes longer. */
async function close(daemon: Daemon, within_ms: number): Promise<void> {
  const late = systemClock.sleep(within_ms).then(() => {
    throw new DaemonError('deadline_exceeded', `daemon did not close within ${within_ms} ms`);
  });
  late.catch(() => undefined);
  await Promise.race([daemon[Symbol.asyncDispose](), late]);
}

/** In an operator's words, what is in force in place of the file. */
function configCondition({ file, served, lost, problems }: ServiceConfig) {
  const [first = '', ...rest] = problems.map((problem) => problem.replace(`${file}: `, ''));
  const more = rest.length === 0 ? '' : ` (and ${rest.length} more)`;
  const off = lost.map((name) => (name === 'swarm' ? '[swarm] (off)' : `[${name}] (defaults)`));
  const instead = {
    file: 'the rest of it is in force',
    last_good: 'the last configuration that served is in force',
    sections: `the rest of it is in force, without ${off.join(', ') || 'what is unknown'}`,
  };
  return {
    what: `${file} cannot be used as it is: ${instead[served]}; ${first}${more}`,
    mend: [`layerswarm config check ${file}`, 'systemctl restart layerswarm'],
  };
}

/** Signals and errors that nobody caught. `ended` resolves with the first that ends the daemon. */
function watchProcess(logger: Logger): {
  readonly ended: Promise<Why>;
  readonly onDefect: (error: unknown) => void;
} {
  const end = Promise.withResolvers<Why>();
  let signals = 0;
  let is_broken = false;
  const onSignal = (): void => {
    signals += 1;
    if (signals > 1) process.exit(STATUS.cancelled.exit);
    end.resolve('signal');
  };
  const onDefect = (error: unknown): void => {
    if (!is_broken) {
      is_broken = true;
      // First of all, before anything that may fail in its turn: nothing that hangs or throws from here on keeps the process.
      setTimeout(() => process.exit(STATUS.internal.exit), DEFECT_CLOSE_MS * 2);
    }
    logger.error({ err: error }, 'defect: the daemon ends and should be started again');
    end.resolve('defect');
  };
  const onUncaught = (error: unknown): void => {
    if (takenBySwarm(error)) logger.debug({ err: error }, 'nobody caught an error in the swarm');
    else onDefect(error);
  };
  process.on('SIGTERM', onSignal).on('SIGINT', onSignal);
  process.on('uncaughtException', onUncaught).on('unhandledRejection', onUncaught);
  return { ended: end.promise, onDefect };
}
