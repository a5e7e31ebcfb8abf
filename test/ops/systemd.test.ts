import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createServiceManager, inheritedSocketFd } from '../../src/ops/systemd.ts';
import { FakeClock, settle } from '../fakes/fake-clock.ts';
import { MemoryLogger } from '../fakes/memory-logger.ts';

function bench(environment: Record<string, string>, fail = false) {
  const sent: string[] = [];
  const clock = new FakeClock();
  const logger = new MemoryLogger();
  const notify = async (args: readonly string[]): Promise<void> => {
    sent.push(args.join(' '));
    if (fail) throw new Error('no systemd-notify');
  };
  return {
    sent,
    clock,
    logger,
    manager: createServiceManager({ clock, logger, notify }, environment, 7),
  };
}

test('without a notify socket nothing is sent and the watchdog ends at once', async () => {
  const { manager, sent } = bench({ WATCHDOG_USEC: '30000000' });
  await manager.ready('x');
  await manager.stopping();
  await manager.watchdog(new AbortController().signal);
  assert.deepEqual(sent, []);
});

test('readiness, changed status lines and the end are notified', async () => {
  const { manager, sent } = bench({ NOTIFY_SOCKET: '/run/n' });
  await manager.ready('alone');
  await manager.status('alone');
  await manager.status('connected, 2 peers');
  await manager.stopping();
  assert.deepEqual(sent, [
    '--ready --status=alone',
    '--status=connected, 2 peers',
    'STOPPING=1 --status=stopping',
  ]);
});

test('the watchdog is fed at half its interval until the signal', async () => {
  const { manager, sent, clock } = bench({
    NOTIFY_SOCKET: '/run/n',
    WATCHDOG_USEC: '30000000',
    WATCHDOG_PID: '7',
  });
  const stop = new AbortController();
  const fed = manager.watchdog(stop.signal);
  await clock.advance(45_000);
  assert.equal(sent.length, 4);
  stop.abort();
  await fed;
  assert.equal(clock.pending, 0);
});

test('a watchdog of another process is not fed', async () => {
  const { manager, sent } = bench({
    NOTIFY_SOCKET: '/run/n',
    WATCHDOG_USEC: '30000000',
    WATCHDOG_PID: '8',
  });
  await manager.watchdog(new AbortController().signal);
  assert.deepEqual(sent, []);
});

test('a manager that cannot be reached is warned about once', async () => {
  const { manager, logger } = bench({ NOTIFY_SOCKET: '/run/n' }, true);
  await manager.ready('alone');
  await manager.stopping();
  await settle();
  assert.deepEqual(
    logger.lines.map((l) => l.level),
    ['warn'],
  );
});

test('an inherited socket is taken only by the process it was meant for', () => {
  assert.equal(inheritedSocketFd({ LISTEN_PID: '7', LISTEN_FDS: '1' }, 7), 3);
  assert.equal(inheritedSocketFd({ LISTEN_PID: '6', LISTEN_FDS: '1' }, 7), undefined);
  assert.equal(inheritedSocketFd({ LISTEN_PID: '7', LISTEN_FDS: '0' }, 7), undefined);
  assert.equal(inheritedSocketFd({ LISTEN_PID: '7' }, 7), undefined);
  assert.equal(inheritedSocketFd({}, 7), undefined);
});
