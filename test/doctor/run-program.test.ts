import assert from 'node:assert/strict';
import { test } from 'node:test';
import { hasCode } from '../../src/base/errors.ts';
import { runProgram } from '../../src/host/run-program.ts';

const limits = { signal: new AbortController().signal, deadline_ms: 10_000 };

test('a program that ends with an exit code resolves, with what it wrote on both streams', async () => {
  const script = 'cat; echo out; echo err >&2; exit 3';
  const result = await runProgram(['sh', '-c', script], { ...limits, input: 'in\n' });
  assert.deepEqual(result, { code: 3, stdout: 'in\nout\n', stderr: 'err\n' });
});

test('a program that is not there is not_found and named', async () => {
  await assert.rejects(
    runProgram(['no-such-program-here'], limits),
    (error) => hasCode(error, 'not_found') && error.facts['program'] === 'no-such-program-here',
  );
});

test('a program that passes its deadline is killed', async () => {
  await assert.rejects(runProgram(['sleep', '3600'], { ...limits, deadline_ms: 1 }), (error) =>
    hasCode(error, 'deadline_exceeded'),
  );
});

test('an interrupted program is killed, and one that would start after that is not started', async () => {
  const stop = new AbortController();
  const running = runProgram(['sleep', '3600'], { ...limits, signal: stop.signal });
  stop.abort();
  for (const call of [running, runProgram(['true'], { ...limits, signal: stop.signal })]) {
    await assert.rejects(call, (error) => hasCode(error, 'cancelled'));
  }
});

test('what a killed program has started does not keep us reading, and what is kept of its output is bounded', async () => {
  const flood = ['sh', '-c', 'yes | cat'];
  await assert.rejects(runProgram(flood, { ...limits, deadline_ms: 100 }), (error) =>
    hasCode(error, 'deadline_exceeded'),
  );
  const { stdout } = await runProgram(['seq', '100000'], { ...limits, output_max_bytes: 10 });
  assert.equal(stdout, '1\n2\n3\n4\n5\n');
});

test('a program gets the environment it is given, and its input', async () => {
  const environment = { REGION: 'north' };
  const script = ['sh', '-c', 'echo $REGION; cat'];
  const { stdout } = await runProgram(script, { ...limits, environment, input: 'in' });
  assert.equal(stdout, 'north\nin');
});
