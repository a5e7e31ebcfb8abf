import { systemClock } from './base/clock.ts';
import { DaemonError } from './base/errors.ts';
import type { Config } from './config/schema.ts';
import { Daemon } from './daemon.ts';
import { createLogger } from './ops/logger.ts';
import { createServiceManager, inheritedSocketFd, type ServiceEnvironment } from './ops/systemd.ts';
import { STATUS } from './rpc/status.ts';

/** After the drain: how long closing may take before the process ends without it, in ms. */
const CLOSE_MS = 10_000;

/**
 * The daemon as a process: starts it, waits for SIGTERM or SIGINT, drains, closes, and resolves to the exit code. A second signal ends
 * it at once. A defect anywhere ends it with 70, so that the service manager starts it anew.
 */
export async function runDaemon(
  config: Config,
  { version, environment }: { readonly version: string; readonly environment: ServiceEnvironment },
): Promise<number> {
  const logger = createLogger(config.log);
  const clock = systemClock;
  const end = Promise.withResolvers<'signal' | 'defect'>();
  let signals = 0;
  const onSignal = (): void => {
    signals += 1;
    if (signals > 1) process.exit(STATUS.cancelled.exit);
    end.resolve('signal');
  };
  const onDefect = (error: unknown): void => {
    logger.error({ err: error }, 'defect: the daemon ends and should be started again');
    end.resolve('defect');
  };
  process.on('SIGTERM', onSignal).on('SIGINT', onSignal);
  process.on('uncaughtException', onDefect).on('unhandledRejection', onDefect);
  const socket_fd = inheritedSocketFd(environment);
  const service = createServiceManager({ clock, logger }, environment);
  const daemon = await Daemon.start({ clock, logger, service, version, socket_fd }, config);
  logger.info({ version, pid: process.pid, metrics_port: daemon.metrics_port }, 'daemon started');
  daemon.failed.catch(onDefect);
  const why = await end.promise;
  // Node keeps nothing of a defect's call alive on purpose; a drain would trust a broken process with containerd's calls.
  if (why === 'signal') await Promise.race([daemon.drain(), daemon.failed.catch(() => undefined)]);
  const closed = daemon[Symbol.asyncDispose]();
  const late = clock.sleep(CLOSE_MS).then(() => {
    throw new DaemonError('deadline_exceeded', `daemon did not close within ${CLOSE_MS} ms`);
  });
  late.catch(() => undefined);
  await Promise.race([closed, late]);
  logger.info({}, 'daemon ended');
  // Timers and sockets of libraries must not keep an ended daemon alive.
  setImmediate(() => process.exit());
  return why === 'signal' ? 0 : STATUS.internal.exit;
}
