// libuv reads the size of its pool once, at the first use of it, which an import that moved may bring forward.
import assert from 'node:assert/strict';
import { mkdtemp, readFile, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { bundle } from '../setup/bundle.ts';
import { type DaemonProcess, DaemonHome } from './daemon-process.ts';

/** As libuv names the threads of its pool. */
const POOL_THREAD = 'libuv-worker';
const POOL_SIZE = 16;

// Daemons inherit this process' environment, and it must not be what sets the size.
delete process.env['UV_THREADPOOL_SIZE'];

/** Threads of the daemon's pool; libuv starts all of them together. */
async function poolThreads({ pid }: DaemonProcess): Promise<number> {
  const tasks = await readdir(`/proc/${pid}/task`);
  const names = tasks.map(async (id) => readFile(`/proc/${pid}/task/${id}/comm`, 'utf8'));
  return (await Promise.all(names)).filter((name) => name.trim() === POOL_THREAD).length;
}

async function assertPool(size: number, program?: readonly string[]): Promise<void> {
  await using home = await DaemonHome.create();
  await using daemon = home.start(program);
  await daemon.said('daemon started');
  assert.equal(await poolThreads(daemon), size);
}

test('the daemon run from its sources has sixteen threads for its disk', async () => {
  await assertPool(POOL_SIZE);
});

test('the bundled daemon has sixteen threads for its disk', async () => {
  const dist = await mkdtemp(join(tmpdir(), 'layerswarm-dist-'));
  try {
    await bundle(dist);
    await assertPool(POOL_SIZE, [join(dist, 'main.js')]);
  } finally {
    await rm(dist, { recursive: true, force: true });
  }
});

test('an operator may choose another number of threads', async () => {
  process.env['UV_THREADPOOL_SIZE'] = '5';
  try {
    await assertPool(5);
  } finally {
    delete process.env['UV_THREADPOOL_SIZE'];
  }
});
