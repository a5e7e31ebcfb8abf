/**
 * The daemon with a swarm that can be made to fail: `faulty-daemon.ts KIND daemon --config FILE`. SIGUSR2 makes the running swarm
 * fail in the way of KIND, SIGHUP throws where no room is. Any other subcommand is the product's.
 */
import { AsyncLocalStorage } from 'node:async_hooks';
import { once } from 'node:events';
import { type AddressInfo, connect, createServer } from 'node:net';
import { loadServiceConfig } from '../../src/config/service-config.ts';
import { runDaemon } from '../../src/daemon-process.ts';
import { type StartSwarm, startSwarm } from '../../src/swarm-supervisor.ts';

/** What goes wrong in the swarm room. */
export type FaultKind = 'timer' | 'rejection' | 'socket' | 'loop' | 'deep';

const [kind = '', command = '', ...rest] = process.argv.slice(2);
let fail: () => void = () => undefined;

const start: StartSwarm = async (modules, config, options) => {
  let is_broken = false;
  const loop = Promise.withResolvers<never>();
  loop.promise.catch(() => undefined);
  // Whatever asks for the time in the swarm fails, wherever that happens to be.
  const clock = {
    ...modules.clock,
    now_ms: () => {
      if (is_broken) throw new TypeError('a fault in the middle of the swarm');
      return modules.clock.now_ms();
    },
  };
  const swarm = await startSwarm({ ...modules, clock }, config, options);
  const server = createServer(() => {
    server.close();
    throw new TypeError('a fault in a handler of a socket');
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  options.signal.addEventListener('abort', () => server.close());
  // As everything runs that the swarm has begun.
  const inside = AsyncLocalStorage.snapshot();
  const faults: Record<FaultKind, () => void> = {
    timer: () =>
      void inside(() =>
        setTimeout(() => {
          throw new TypeError('a fault in a timer');
        }, 0),
      ),
    rejection: () => void inside(() => Promise.reject(new TypeError('a fault nobody waits for'))),
    socket: () =>
      void connect((server.address() as AddressInfo).port, '127.0.0.1').on(
        'error',
        () => undefined,
      ),
    loop: () => loop.reject(new TypeError('a fault in background work')),
    deep: () => {
      is_broken = true;
    },
  };
  fail = faults[kind as FaultKind];
  return {
    done: Promise.race([swarm.done, loop.promise]),
    find: (digest, size_bytes) => swarm.find(digest, size_bytes),
    status: () => swarm.status(),
    onPeer: (listener) => swarm.onPeer(listener),
    setDiskFull: (full) => swarm.setDiskFull(full),
    [Symbol.asyncDispose]: () => swarm[Symbol.asyncDispose](),
  };
};

if (command === 'daemon') {
  process.on('SIGUSR2', () => fail());
  process.on('SIGHUP', () => {
    throw new TypeError('a fault of the process');
  });
  const config = loadServiceConfig(rest[1]!, process.env);
  process.exitCode = await runDaemon(config, {
    version: '0.1.0',
    environment: process.env,
    startSwarm: start,
  });
} else {
  process.argv.splice(2, 1);
  await import('../../src/main.ts');
}
