import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Conditions } from '../../src/ops/conditions.ts';
import { PrometheusRegister } from '../../src/ops/register.ts';
import { FakeClock } from '../fakes/fake-clock.ts';
import { MemoryLogger } from '../fakes/memory-logger.ts';

function bench() {
  const clock = new FakeClock();
  const logger = new MemoryLogger();
  const register = new PrometheusRegister();
  const conditions = new Conditions({ clock, logger, register });
  const metric = async (cause: string) =>
    new RegExp(`^layerswarm_degraded\\{cause="${cause}"\\} (\\d)$`, 'm').exec(
      await register.text(),
    )?.[1];
  return { clock, logger, conditions, metric };
}

const key = { what: 'no key', mend: ['layerswarm keygen'] };

test('a condition is told once, however often it is found again, and once when it is over', async () => {
  const { clock, logger, conditions } = bench();
  conditions.raise('cluster_key', key);
  await clock.advance(5_000);
  conditions.raise('cluster_key', key);
  conditions.clear('cluster_key');
  conditions.clear('cluster_key');
  const told = logger.lines.map(({ level, facts }) => [level, facts]);
  assert.deepEqual(told, [
    ['warn', { cause: 'cluster_key', ...key }],
    ['info', { cause: 'cluster_key', seconds: 5 }],
  ]);
});

test('a condition that becomes another one of its cause is told anew and keeps its age', async () => {
  const { clock, logger, conditions } = bench();
  conditions.raise('cluster_key', key);
  const [first] = conditions.list();
  await clock.advance(1_000);
  conditions.raise('cluster_key', { ...key, what: 'a bad key' });
  assert.deepEqual(
    conditions.list().map(({ what, since_ms }) => ({ what, since_ms })),
    [{ what: 'a bad key', since_ms: first?.since_ms }],
  );
  assert.equal(logger.lines.length, 2);
});

test('the longest-standing condition comes first', async () => {
  const { clock, conditions } = bench();
  conditions.raise('metrics_listen', key);
  await clock.advance(1);
  conditions.raise('config', key);
  await clock.advance(1);
  conditions.raise('metrics_listen', { ...key, what: 'another' });
  assert.deepEqual(
    conditions.list().map(({ cause }) => cause),
    ['metrics_listen', 'config'],
  );
});

test('every cause has its metric from the start', async () => {
  const { conditions, metric } = bench();
  assert.equal(await metric('swarm_failed'), '0');
  conditions.raise('swarm_failed', key);
  assert.equal(await metric('swarm_failed'), '1');
  assert.equal(await metric('config'), '0');
  conditions.clear('swarm_failed');
  assert.equal(await metric('swarm_failed'), '0');
});
