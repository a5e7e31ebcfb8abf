import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { test } from 'node:test';
import { promisify } from 'node:util';

const PROGRAM = `
await import(${JSON.stringify(new URL('../../src/daemon-process.ts', import.meta.url).href)});
console.log(JSON.stringify(process.moduleLoadList));
`;

test("the daemon's code loads without Node's HTTP client, which would be a fifth of its start", async () => {
  const argv = ['--disable-warning=ExperimentalWarning', '--input-type=module', '-e', PROGRAM];
  const { stdout } = await promisify(execFile)(process.execPath, argv, { timeout: 60_000 });
  const loaded = JSON.parse(stdout) as string[];
  // The list is what it is taken for: the metrics endpoint's server is there.
  assert.ok(loaded.includes('NativeModule http'));
  assert.deepEqual(
    loaded.filter((name) => name.includes('undici')),
    [],
  );
});
