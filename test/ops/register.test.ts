import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PrometheusRegister } from '../../src/ops/register.ts';

test('declared metrics show in the exposition with prefix, labels and collected values', async () => {
  const register = new PrometheusRegister();
  const pieces = register.counter<{ result: 'ok' | 'bad' }>({
    name: 'pieces_total',
    help: 'h',
    labels: ['result'],
  });
  register.counter({ name: 'starts_total', help: 'h' });
  let peers = 2;
  register.gauge({ name: 'peers', help: 'h', collect: (set) => set({}, peers) });
  const seconds = register.histogram({ name: 'wait_seconds', help: 'h', buckets: [0.1, 1] });
  pieces.inc({ result: 'ok' });
  pieces.inc({ result: 'ok' }, 4);
  seconds.observe({}, 0.5);
  peers = 3;
  const text = await register.text();
  assert.match(text, /layerswarm_pieces_total\{result="ok"\} 5/);
  assert.match(text, /layerswarm_starts_total 0/);
  assert.match(text, /layerswarm_peers 3/);
  assert.match(text, /layerswarm_wait_seconds_bucket\{le="1"\} 1/);
});

test('a room that starts anew declares its metrics again: counters go on, gauges ask the newest', async () => {
  const register = new PrometheusRegister();
  const life = (peers: number) => {
    register.gauge({ name: 'peers', help: 'h', collect: (set) => set({}, peers) });
    return register.counter({ name: 'starts_total', help: 'h' });
  };
  life(1).inc({});
  life(2).inc({});
  const text = await register.text();
  assert.match(text, /layerswarm_starts_total 2/);
  assert.match(text, /layerswarm_peers 2/);
  assert.equal(register.total('starts_total'), 2);
});
