// The swarm is loaded late, from the files of the package. Node must not remember for good that one of them could once not be read.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { globSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { bundle } from '../setup/bundle.ts';

/** Few, so that they are quickly taken. Node raises the soft limit to the hard one. */
const DESCRIPTORS = 128;

/** Imports the file again and again; each time descriptors run out one file later than the last time. Prints how it went. */
const PROGRAM = `
  import { closeSync, openSync } from 'node:fs';
  import { registerHooks } from 'node:module';
  const [target] = process.argv.slice(1);
  const taken = [];
  let left;
  registerHooks({
    load(url, context, next) {
      if (url.startsWith('file:') && left-- === 0) {
        try { for (;;) taken.push(openSync('/dev/null')); } catch { /* all of them */ }
      }
      return next(url, context);
    },
  });
  const ends = [];
  for (let tries = 0; tries < 200 && ends.at(-1) !== 'loaded'; tries++) {
    left = tries;
    ends.push(await import(target).then(() => 'loaded', (error) => error.code));
    for (const fd of taken.splice(0)) closeSync(fd);
  }
  console.log(JSON.stringify(ends));
`;

test('a file of the package that could not be read for want of a descriptor is read the next time, whichever it is', async () => {
  const dir = await mkdtemp(join(tmpdir(), 'layerswarm-late-'));
  try {
    await bundle(dir);
    const [swarm] = globSync(join(dir, 'swarm-*.js'));
    const node = [process.execPath, '--input-type=module', '-e', PROGRAM, swarm!];
    const limited = [`--nofile=${DESCRIPTORS}:${DESCRIPTORS}`, ...node];
    const { stdout } = await promisify(execFile)('prlimit', limited);
    const ends = JSON.parse(stdout) as readonly string[];
    assert.equal(ends.at(-1), 'loaded', stdout);
    assert.deepEqual([...new Set(ends.slice(0, -1))], ['EMFILE']);
    assert.ok(ends.length > 5, stdout);
  } finally {
    await rm(dir, { recursive: true });
  }
});
