import { execFile } from 'node:child_process';
import type { Clock } from '../base/clock.ts';
import { isAbort } from '../base/errors.ts';
import type { Logger } from './logger.ts';

/** The environment that systemd gives to a service (sd_notify(3), sd_listen_fds(3)). */
export type ServiceEnvironment = Readonly<Record<string, string | undefined>>;

/** First inherited descriptor (SD_LISTEN_FDS_START of sd_listen_fds(3)). */
const FIRST_INHERITED_FD = 3;
/** `systemd-notify` takes 6-11 ms; a manager that does not answer must not keep us. */
const NOTIFY_TIMEOUT_MS = 5_000;
/** systemd shows one line. */
const STATUS_MAX_LENGTH = 200;

/** Tells the service manager how the daemon is doing. Never fails: without a manager every call does nothing. */
export interface ServiceManager {
  /** Calls are served from now on. */
  ready(status: string): Promise<void>;
  /** One line for `systemctl status`; text of ours only. Repeated lines are not sent again. */
  status(text: string): Promise<void>;
  stopping(): Promise<void>;
  /** Sends signs of life at half the watchdog interval until the signal aborts. Resolves at once when there is no watchdog. */
  watchdog(signal: AbortSignal): Promise<void>;
}

/** Sends one notification; rejects when it could not be sent. */
export type Notify = (args: readonly string[], socket: string) => Promise<void>;

/**
 * The manager of this process, from its environment. Notifications are sent by `systemd-notify`, because Node has no
 * unix datagram sockets; the unit therefore needs `NotifyAccess=all`.
 */
export function createServiceManager(
  modules: { readonly clock: Clock; readonly logger: Logger; readonly notify?: Notify },
  environment: ServiceEnvironment,
  pid: number = process.pid,
): ServiceManager {
  const { clock, logger, notify = spawnNotify } = modules;
  const socket = environment['NOTIFY_SOCKET'] ?? '';
  const interval_ms = socket === '' ? 0 : watchdogInterval_ms(environment, pid);
  let last_status = '';
  let warned = false;

  const send = async (...args: string[]): Promise<void> => {
    if (socket === '') return;
    try {
      await notify(args, socket);
    } catch (error) {
      // Once is enough: a manager that is deaf stays deaf, and the watchdog would repeat it for ever.
      if (!warned) logger.warn({ err: error }, 'cannot notify systemd');
      warned = true;
    }
  };
  const line = (text: string): string => `--status=${text.slice(0, STATUS_MAX_LENGTH)}`;

  return {
    ready: (status) => {
      last_status = status;
      return send('--ready', line(status));
    },
    status: async (text) => {
      if (text === last_status) return;
      last_status = text;
      await send(line(text));
    },
    stopping: () => send('STOPPING=1', line('stopping')),
    watchdog: async (signal) => {
      if (interval_ms === 0) return;
      while (!signal.aborted) {
        await send('WATCHDOG=1');
        try {
          await clock.sleep(interval_ms, { signal });
        } catch (error) {
          if (!isAbort(error)) throw error;
        }
      }
    },
  };
}

/**
 * The descriptor of the listening socket that systemd opened for this process (`layerswarm.socket`), if any. Only for
 * the very process that systemd started: a child inherits the variables, not the descriptor.
 */
export function inheritedSocketFd(
  environment: ServiceEnvironment,
  pid: number = process.pid,
): number | undefined {
  if (environment['LISTEN_PID'] !== String(pid)) return undefined;
  return Number(environment['LISTEN_FDS']) >= 1 ? FIRST_INHERITED_FD : undefined;
}

function watchdogInterval_ms(environment: ServiceEnvironment, pid: number): number {
  const usec = Number(environment['WATCHDOG_USEC']);
  const for_us = (environment['WATCHDOG_PID'] ?? String(pid)) === String(pid);
  return for_us && Number.isSafeInteger(usec) && usec > 0 ? usec / 2000 : 0;
}

function spawnNotify(args: readonly string[], socket: string): Promise<void> {
  return new Promise((resolve, reject) => {
    execFile(
      'systemd-notify',
      args,
      { timeout: NOTIFY_TIMEOUT_MS, env: { NOTIFY_SOCKET: socket, PATH: '/usr/bin:/bin' } },
      (error) => {
        if (error === null) resolve();
        else reject(new Error(`systemd-notify failed: ${error.message}`, { cause: error }));
      },
    );
  });
}
