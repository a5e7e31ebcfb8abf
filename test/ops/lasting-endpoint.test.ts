import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type AddressInfo, createServer } from 'node:net';
import { test } from 'node:test';
import { Conditions } from '../../src/ops/conditions.ts';
import { LastingEndpoint } from '../../src/ops/lasting-endpoint.ts';
import { PrometheusRegister } from '../../src/ops/register.ts';
import { FakeClock } from '../fakes/fake-clock.ts';
import { MemoryLogger } from '../fakes/memory-logger.ts';

test('an endpoint whose port is taken is tried again until it is free, and says so meanwhile', async () => {
  const other = createServer().listen(0, '127.0.0.1');
  await once(other, 'listening');
  const { port } = other.address() as AddressInfo;
  const clock = new FakeClock();
  const logger = new MemoryLogger();
  const register = new PrometheusRegister();
  const conditions = new Conditions({ clock, logger, register });
  await using endpoint = new LastingEndpoint(
    {
      exposition: register,
      readiness: () => ({ state: 'alone' }),
      loopLag_ms: () => 0,
      register,
      logger,
      clock,
      conditions,
    },
    { host: '127.0.0.1', port },
  );
  const retrying = endpoint.run(new AbortController().signal);
  await endpoint.tried;
  await clock.advance(120_000);
  assert.deepEqual(
    conditions.list().map(({ cause, what }) => [cause, what]),
    [['metrics_listen', `no metrics on 127.0.0.1:${port}: the address is in use`]],
  );
  await once(other.close(), 'close');
  // A try that is under way for real ends a little later than this clock says.
  while (endpoint.port === undefined) await clock.advance(30_000);
  await retrying;
  assert.deepEqual(conditions.list(), []);
  assert.equal(endpoint.port, port);
  assert.deepEqual(
    logger.lines.map(({ level }) => level),
    ['warn', 'info'],
  );
});

test('an endpoint that never got its port ends with the daemon', async () => {
  const other = createServer().listen(0, '127.0.0.1');
  await once(other, 'listening');
  const clock = new FakeClock();
  const logger = new MemoryLogger();
  const register = new PrometheusRegister();
  const stop = new AbortController();
  await using endpoint = new LastingEndpoint(
    {
      exposition: register,
      readiness: () => ({ state: 'alone' }),
      loopLag_ms: () => 0,
      register,
      logger,
      clock,
      conditions: new Conditions({ clock, logger, register }),
    },
    { host: '127.0.0.1', port: (other.address() as AddressInfo).port },
  );
  const retrying = endpoint.run(stop.signal);
  await endpoint.tried;
  stop.abort();
  await retrying;
  assert.equal(endpoint.port, undefined);
  await once(other.close(), 'close');
});
