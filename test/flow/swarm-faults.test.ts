import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { mkdir, open, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { type AddressInfo, createServer } from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { type BlobFile, makeBlob } from '../bench/blob-file.ts';
import { ContentCalls, layerRef } from '../bench/content-calls.ts';
import { fetchStatus } from '../../src/cli/control-client.ts';
import { CLUSTER_KEY, DaemonHome } from './daemon-process.ts';
import type { FaultKind } from './faulty-daemon.ts';

const FAULTY = fileURLToPath(new URL('./faulty-daemon.ts', import.meta.url));
const MIB = 1024 * 1024;
const WRITE_BYTES = MIB;

const statusOf = (home: DaemonHome, signal: AbortSignal) => fetchStatus(home.socket, signal);

/** Looks at the daemon's status until it is as wanted; the test's own time is the limit. */
async function until(
  home: DaemonHome,
  signal: AbortSignal,
  condition: (status: Awaited<ReturnType<typeof statusOf>>) => boolean,
): Promise<void> {
  while (!condition(await statusOf(home, signal))) signal.throwIfAborted();
}

/** A blob as if pulled long ago. */
async function seed(home: DaemonHome, size_bytes: number): Promise<BlobFile> {
  const blobs = join(home.content, 'blobs', 'sha256');
  await mkdir(blobs, { recursive: true });
  const blob = await makeBlob(home.path, size_bytes);
  const path = join(blobs, blob.digest.slice('sha256:'.length));
  await rename(blob.path, path);
  return { ...blob, path };
}

const kinds: readonly FaultKind[] = ['timer', 'rejection', 'socket', 'loop', 'deep'];

for (const kind of kinds) {
  test(`a fault in the swarm in the middle of a pull costs the swarm and nothing else: ${kind}`, {
    timeout: 90_000,
  }, async ({ signal }) => {
    await using holder = await DaemonHome.create({
      swarm: `max_upload_bytes_per_second = ${8 * MIB}`,
    });
    const blob = await seed(holder, 40 * MIB);
    await using one = holder.start();
    await one.said('daemon started');
    const port = (await statusOf(holder, signal)).swarm!.listenAddresses[0]!.split('/')[4]!;
    // One port for all lives: what one life leaves open, the next one cannot have.
    const own_port = await freePort();
    await using home = await DaemonHome.create({
      swarm: `bootstrap = ["127.0.0.1:${port}"]\nlisten_port = ${own_port}`,
    });
    await using two = home.start([FAULTY, kind]);
    await two.said('daemon started');
    await until(home, signal, (s) => s.swarm?.peers[0]?.inventoryBlobs === 1);

    using client = new ContentCalls(home.socket);
    const write = client.write();
    await write.ask({ action: 'STAT', ref: layerRef(blob), total: blob.size_bytes });
    const waiting = write.ask({ action: 'STAT' });
    await until(home, signal, (s) => (s.transfers[0]?.receivedBytes ?? 0) >= 4 * MIB);
    const degraded = two.saysAgain('degraded: containerd is served, something else is not');
    two.signal('SIGUSR2');
    assert.equal((await degraded)['cause'], 'swarm_failed');
    const { offset } = await waiting;
    assert.ok(offset < blob.size_bytes, 'the pull was over before the fault');

    // What containerd does then: the rest comes from the registry.
    await writeRest(write, blob, offset);
    await write.ask({ action: 'COMMIT', total: blob.size_bytes, expected: blob.digest });
    await write.end();
    const bytes = await readFile(join(home.content, 'blobs', blob.digest.replace(':', '/')));
    assert.equal(`sha256:${createHash('sha256').update(bytes).digest('hex')}`, blob.digest);

    // It comes back by itself, and what it is for works again.
    await until(home, signal, (s) => (s.swarm?.peers[0]?.inventoryBlobs ?? 0) >= 1);
    await client.unary('Delete', { digest: blob.digest });
    await until(home, signal, (s) => s.conditions.length === 0);
    assert.deepEqual(
      two.complaints.filter(({ msg }) => !msg.startsWith('degraded')),
      [],
    );
    two.signal('SIGTERM');
    assert.deepEqual(await two.ended, { code: 0, signal: null });
  });
}

test('a fault that is not of the swarm ends the process with 70, also when no descriptor is free', {
  timeout: 60_000,
}, async () => {
  for (const limit of [undefined, 8]) {
    await using home = await DaemonHome.create();
    await using daemon = home.start([FAULTY, 'timer']);
    await daemon.said('daemon started');
    if (limit !== undefined) await allowFiles(daemon.pid, limit);
    daemon.signal('SIGHUP');
    assert.deepEqual(await daemon.ended, { code: 70, signal: null });
  }
});

test('a daemon without a free descriptor goes on, keeps its swarm, and complains of nothing once there are some', {
  timeout: 60_000,
}, async ({ signal }) => {
  // Each round looks at the interfaces of the host, which takes a descriptor. Port 1 refuses.
  await using home = await DaemonHome.create({
    swarm: 'bootstrap = ["127.0.0.1:1"]',
    log: 'level = "debug"',
  });
  await using daemon = home.start();
  await daemon.said('daemon started');
  await allowFiles(daemon.pid, 8);
  for (let round = 0; round < 3; round++) await daemon.saysAgain('bootstrap round over');
  await allowFiles(daemon.pid, 1024);
  const status = await statusOf(home, signal);
  assert.deepEqual([status.swarm?.enabled, status.conditions], [true, []]);
  assert.deepEqual(daemon.complaints, []);
  daemon.signal('SIGTERM');
  assert.deepEqual(await daemon.ended, { code: 0, signal: null });
});

for (const free of [0, 3])
  test(`a swarm that begins when hardly a descriptor is free costs the swarm alone, and is there once there are some: ${free} free`, {
    timeout: 90_000,
  }, async ({ signal }) => {
    await using home = await DaemonHome.create();
    // Without a key nothing of the swarm is loaded.
    await rm(home.key);
    await using daemon = home.start();
    await daemon.said('daemon started');
    const open = new Set(await readdir(`/proc/${daemon.pid}/fd`));
    let limit = 0;
    while (open.has(String(limit))) limit += 1;
    await allowFiles(daemon.pid, limit + free);
    const degraded = daemon.saysAgain('degraded: containerd is served, something else is not');
    await writeFile(home.key, `${CLUSTER_KEY}\n`, { mode: 0o600 });
    const { cause, what } = await degraded;
    assert.equal(cause, 'swarm_failed');
    assert.match(String(what), /^no file descriptor is free/);
    await allowFiles(daemon.pid, 1024);
    await until(home, signal, ({ swarm }) => swarm?.enabled === true);
    daemon.signal('SIGTERM');
    assert.deepEqual(await daemon.ended, { code: 0, signal: null });
  });

/** A port that nobody has now; a test that begins in the same moment may take it, which fails the test and hides nothing. */
async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  await once(server.close(), 'close');
  return port;
}

/** Sets how many descriptors the process may have; what it has open stays open. */
async function allowFiles(pid: number, count: number): Promise<void> {
  await promisify(execFile)('prlimit', ['--pid', String(pid), `--nofile=${count}:`]);
}

async function writeRest(
  write: ReturnType<ContentCalls['write']>,
  blob: BlobFile,
  from: number,
): Promise<void> {
  await using file = await open(blob.path, 'r');
  for (let offset = from; offset < blob.size_bytes; ) {
    const data = Buffer.alloc(Math.min(WRITE_BYTES, blob.size_bytes - offset));
    await file.read(data, 0, data.length, offset);
    await write.ask({ action: 'WRITE', data, offset, total: blob.size_bytes });
    offset += data.length;
  }
}
