import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { GO_MODULE, goMissing } from './go.ts';

/** The cases of containerd's suite, in its order. */
const CASES = [
  'Writer',
  'UpdateStatus',
  'CommitExists',
  'Resume',
  'ResumeTruncate',
  'ResumeDiscard',
  'ResumeCopy',
  'ResumeCopySeeker',
  'ResumeCopyReaderAt',
  'SmallBlob',
  'Labels',
  'CommitErrorState',
];

const PREFIX = 'TestContentDoor/';

for (const server of ['h2', 'grpc-js'] as const) {
  test(`containerd's own content suite passes on the ${server} server`, {
    skip: goMissing(),
  }, async (t) => {
    const { results, output } = await runSuite(t, server);
    assert.deepEqual(
      results,
      CASES.map((name) => `${name}: pass`),
      output,
    );
  });
}

type GoEvent = { readonly Action: string; readonly Test?: string; readonly Output?: string };

/** Runs the Go suite in a temporary directory of its own, which must be empty afterwards. */
async function runSuite(
  t: TestContext,
  server: string,
): Promise<{ results: string[]; output: string }> {
  const directory = await mkdtemp(join(tmpdir(), 'cs-'));
  t.after(() => rm(directory, { recursive: true, force: true }));
  const serve = fileURLToPath(new URL('serve.ts', import.meta.url));
  const command = [process.execPath, '--disable-warning=ExperimentalWarning', serve];
  const child = spawn('go', ['test', '-json', '-count=1', '-timeout=300s', '.'], {
    cwd: GO_MODULE,
    // Go and the suite put their own temporary directories under this one.
    env: {
      ...process.env,
      TMPDIR: directory,
      LAYERSWARM_SERVE: [...command, '--server', server].join('\n'),
    },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  t.after(() => child.kill());
  const ended = once(child, 'close');
  const results: string[] = [];
  let output = '';
  for await (const line of createInterface({ input: child.stdout })) {
    const event = line.startsWith('{')
      ? (JSON.parse(line) as GoEvent)
      : { Action: 'output', Output: `${line}\n` };
    output += event.Output ?? '';
    const name = event.Test?.startsWith(PREFIX) === true ? event.Test.slice(PREFIX.length) : '';
    const ends = event.Action === 'pass' || event.Action === 'fail' || event.Action === 'skip';
    if (ends && name !== '' && !name.includes('/')) results.push(`${name}: ${event.Action}`);
  }
  assert.deepEqual(await ended, [0, null], output);
  assert.deepEqual(await readdir(directory), [], 'the suite left something behind');
  return { results, output };
}
