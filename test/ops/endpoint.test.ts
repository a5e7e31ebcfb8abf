import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect } from 'node:net';
import { type TestContext, test } from 'node:test';
import { hasCode } from '../../src/base/errors.ts';
import { OpsEndpoint, type Readiness } from '../../src/ops/endpoint.ts';
import { ProcessMetrics } from '../../src/ops/process-metrics.ts';
import { PrometheusRegister } from '../../src/ops/register.ts';
import { MemoryLogger } from '../fakes/memory-logger.ts';

async function bench(t: TestContext, exposition?: { text(): Promise<string> }) {
  const register = new PrometheusRegister();
  const world = { readiness: { state: 'starting' } as Readiness, lag_ms: 0 };
  const logger = new MemoryLogger();
  const modules = {
    exposition: exposition ?? register,
    register,
    logger,
    readiness: () => world.readiness,
    loopLag_ms: () => world.lag_ms,
  };
  const endpoint = await OpsEndpoint.listen(modules, { host: '127.0.0.1', port: 0 });
  t.after(() => endpoint[Symbol.asyncDispose]());
  const get = async (path: string, method = 'GET') => {
    const response = await fetch(`http://127.0.0.1:${endpoint.port}${path}`, { method });
    return { status: response.status, body: (await response.text()).trim() };
  };
  return { endpoint, get, world, register, modules, logger };
}

const states = [
  ['starting', 503],
  ['alone', 200],
  ['connected', 200],
  ['degraded', 200],
  ['draining', 503],
] as const;

for (const [state, status] of states) {
  test(`/readyz answers ${status} with the name of the state: ${state}`, async (t) => {
    const { get, world } = await bench(t);
    world.readiness = { state, reason: 'because' };
    assert.deepEqual(await get('/readyz'), { status, body: `${state}: because` });
  });
}

test('/healthz tells the lag of the event loop and fails when it is too long', async (t) => {
  const { get, world } = await bench(t);
  assert.deepEqual(await get('/healthz'), { status: 200, body: 'event loop lag 0 ms' });
  world.lag_ms = 6000.4;
  assert.deepEqual(await get('/healthz'), { status: 503, body: 'event loop lag 6000 ms' });
});

test('/metrics shows what the rooms declared and what the process costs', async (t) => {
  const { get, register } = await bench(t);
  const metrics = new ProcessMetrics(register);
  t.after(() => metrics[Symbol.dispose]());
  await get('/metrics');
  const { status, body } = await get('/metrics');
  assert.equal(status, 200);
  assert.match(body, /layerswarm_process_resident_memory_bytes \d{7,}/);
  assert.match(body, /layerswarm_process_cpu_seconds_total\{mode="user"\} 0\.\d+/);
  assert.match(body, /layerswarm_process_event_loop_delay_seconds\{quantile="1"\}/);
  assert.match(body, /layerswarm_process_open_files \d+/);
  assert.match(body, /layerswarm_metrics_scrape_seconds_count 1/);
});

test('other paths and methods are refused with a hint', async (t) => {
  const { get } = await bench(t);
  assert.equal((await get('/')).status, 404);
  assert.equal((await get('/metrics', 'POST')).status, 405);
  assert.deepEqual(await get('/readyz', 'HEAD'), { status: 503, body: '' });
});

test('scrapes at the same time share one rendering, and a failed one is an error of ours', async (t) => {
  let renderings = 0;
  const gate = Promise.withResolvers<string>();
  const { get, logger } = await bench(t, {
    text: () => {
      renderings++;
      return gate.promise;
    },
  });
  const both = [get('/metrics'), get('/metrics')];
  // Answered on the same loop after both requests were taken: a third request proves it.
  await get('/healthz');
  gate.reject(new Error('broken collector'));
  assert.deepEqual(
    (await Promise.all(both)).map((a) => a.status),
    [500, 500],
  );
  assert.ok(renderings <= 2);
  assert.equal(logger.lines[0]?.level, 'error');
});

test('an address in use is a failed precondition that names the key', async (t) => {
  const { endpoint, modules } = await bench(t);
  const other = { ...modules, register: new PrometheusRegister() };
  await assert.rejects(
    OpsEndpoint.listen(other, { host: '127.0.0.1', port: endpoint.port }),
    (e) => hasCode(e, 'failed_precondition') && e.message.includes('[metrics] listen'),
  );
});

test('junk on the port ends that connection only', async (t) => {
  const { endpoint, get } = await bench(t);
  const socket = connect(endpoint.port, '127.0.0.1');
  socket.on('error', () => undefined);
  socket.write('\x16\x03\x01 nonsense\r\n\r\n');
  await once(socket, 'close');
  assert.equal((await get('/healthz')).status, 200);
});
