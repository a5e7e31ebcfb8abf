import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createLogger } from '../../src/ops/logger.ts';

function capture(): { lines: string[]; write: (line: string) => void } {
  const lines: string[] = [];
  return { lines, write: (line) => void lines.push(line) };
}

test('log lines are JSON with level, time and the room that spoke', () => {
  const out = capture();
  createLogger({ level: 'info' }, out)
    .child({ room: 'store' })
    .info({ bytes: 3 }, 'blob committed');
  const line = JSON.parse(out.lines[0] ?? '') as Record<string, unknown>;
  assert.equal(line['level'], 'info');
  assert.equal(line['room'], 'store');
  assert.equal(line['bytes'], 3);
  assert.equal(line['msg'], 'blob committed');
});

test('fields that hold secrets are censored wherever they stand in a line', () => {
  const out = capture();
  const log = createLogger({ level: 'debug' }, out);
  log.error({ key: 'hunter2', swarm: { cluster_key: 'hunter2', token: 'hunter2' } }, 'x');
  assert.ok(!out.lines.join('').includes('hunter2'));
});

test('lines below the level are not written', () => {
  const out = capture();
  createLogger({ level: 'warn' }, out).info({}, 'x');
  assert.equal(out.lines.length, 0);
});
