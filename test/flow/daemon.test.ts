import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { createHash } from 'node:crypto';
import { readFile, rm, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';
import { ContentCalls } from '../bench/content-calls.ts';
import { DaemonHome, type DaemonProcess, layerswarm } from './daemon-process.ts';

type Status = {
  readonly state: string;
  readonly reason: string;
  readonly swarm: {
    readonly enabled: boolean;
    readonly listen_addresses: readonly string[];
    readonly connected_peers: number;
    readonly peers: readonly { readonly transport: string }[];
  };
};

async function statusOf(home: DaemonHome): Promise<{ code: number; status: Status }> {
  const { code, out } = await layerswarm('status', '--config', home.config, '--json');
  return { code, status: JSON.parse(out) as Status };
}

/** Ends the daemon in order and looks whether it left anything. */
async function assertEndsClean(daemon: DaemonProcess, home: DaemonHome): Promise<void> {
  daemon.signal('SIGTERM');
  assert.deepEqual(await daemon.ended, { code: 0, signal: null });
  assert.equal(daemon.stderr, '');
  assert.ok(!existsSync(home.socket), 'the socket is left');
  assert.ok(!existsSync(join(home.state, 'lock')), 'the lock is left');
}

/** Resolves when nobody accepts on the socket any more. Each try is answered by the kernel at once. */
async function refused(path: string): Promise<void> {
  for (;;) {
    const open = await new Promise<boolean>((resolve) => {
      const socket = connect(path, () => {
        socket.destroy();
        resolve(true);
      });
      socket.on('error', () => resolve(false));
    });
    if (!open) return;
  }
}

test('a daemon starts alone, tells its status everywhere, and SIGTERM ends it with nothing left', async () => {
  await using home = await DaemonHome.create();
  await using daemon = home.start();
  const url = await daemon.endpoint();
  const { code, status } = await statusOf(home);
  assert.equal(code, 1);
  assert.equal(status.state, 'alone');
  assert.ok(status.swarm.listen_addresses.some((a) => a.includes('/quic-v1')));
  const ready = await fetch(`${url}/readyz`);
  assert.deepEqual([ready.status, await ready.text()], [200, 'alone\n']);
  const metrics = await (await fetch(`${url}/metrics`)).text();
  for (const room of ['process', 'store', 'pull', 'content', 'swarm', 'rpc']) {
    assert.match(metrics, new RegExp(`^layerswarm_${room}_`, 'm'), room);
  }
  assert.deepEqual(daemon.complaints, []);
  await assertEndsClean(daemon, home);
});

test('two daemons with one key find each other and are connected', async () => {
  await using first = await DaemonHome.create();
  await using one = first.start();
  await one.said('daemon started');
  const { status } = await statusOf(first);
  const address = status.swarm.listen_addresses.find((a) => a.includes('/quic-v1')) ?? '';
  await using second = await DaemonHome.create({ swarm: `bootstrap = ["${address}"]` });
  await using two = second.start();
  await Promise.all([one.said('first peer connected'), two.said('first peer connected')]);
  for (const home of [first, second]) {
    const { code, status: joined } = await statusOf(home);
    assert.deepEqual([code, joined.state, joined.swarm.connected_peers], [0, 'connected', 1]);
    assert.equal(joined.swarm.peers[0]?.transport, 'quic');
  }
  await assertEndsClean(two, second);
  await assertEndsClean(one, first);
});

test('without a cluster key containerd is served, and the status says what is missing', async () => {
  await using home = await DaemonHome.create();
  await rm(join(home.path, 'cluster.key'));
  await using daemon = home.start();
  await daemon.said('daemon started');
  const { code, status } = await statusOf(home);
  assert.equal(code, 1);
  assert.equal(status.state, 'degraded');
  assert.match(status.reason, /no cluster key at .*cluster\.key/);
  assert.equal(status.swarm.enabled, false);
  await assertEndsClean(daemon, home);
});

test('a write that is under way when the daemon is told to stop is committed before it ends', async () => {
  await using home = await DaemonHome.create();
  await using daemon = home.start();
  await daemon.said('daemon started');
  const bytes = Buffer.from('under way');
  const digest = `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
  using client = new ContentCalls(home.socket);
  const write = client.write();
  await write.ask({ action: 'STAT', ref: 'a-plain-ref', total: bytes.length });
  daemon.signal('SIGTERM');
  await refused(home.socket);
  await write.ask({ action: 'WRITE', data: bytes, offset: 0, total: bytes.length });
  const offset = bytes.length;
  await write.ask({ action: 'COMMIT', offset, total: offset, expected: digest });
  assert.deepEqual(await daemon.ended, { code: 0, signal: null });
  const blob = join(home.content, 'blobs', 'sha256', digest.slice('sha256:'.length));
  assert.deepEqual(await readFile(blob), bytes);
});

test('a second signal ends the daemon at once, and the next start finds its way', async () => {
  await using home = await DaemonHome.create();
  {
    await using daemon = home.start();
    await daemon.said('daemon started');
    using client = new ContentCalls(home.socket);
    const write = client.write();
    await write.ask({ action: 'STAT', ref: 'a-plain-ref', total: 9 });
    daemon.signal('SIGTERM');
    await refused(home.socket);
    daemon.signal('SIGTERM');
    assert.equal((await daemon.ended).code, 130);
  }
  await using next = home.start();
  await next.said('daemon started');
  await assertEndsClean(next, home);
});

test('a daemon that is killed leaves nothing that keeps the next one from starting', async () => {
  await using home = await DaemonHome.create();
  {
    await using daemon = home.start();
    await daemon.said('daemon started');
    daemon.signal('SIGKILL');
    await daemon.ended;
    assert.ok(existsSync(home.socket));
  }
  await using next = home.start();
  await next.said('daemon started');
  await assertEndsClean(next, home);
});

test('a second daemon on the same directories is refused with a sentence, and the first goes on', async () => {
  await using home = await DaemonHome.create();
  await using daemon = home.start();
  await daemon.said('daemon started');
  const second = await layerswarm('daemon', '--config', home.config);
  assert.equal(second.code, 80);
  assert.match(
    second.err,
    /^layerswarm: socket path .* is in use by another daemon; stop it first/,
  );
  const elsewhere = `${home.config}.elsewhere`;
  const text = await readFile(home.config, 'utf8');
  await writeFile(elsewhere, text.replace(/^(socket_path = ".*)"$/m, '$1.other"'));
  const third = await layerswarm('daemon', '--config', elsewhere);
  assert.equal(third.code, 80);
  assert.match(third.err, /^layerswarm: .* is in use by another layerswarm daemon \(pid \d+\)/);
  assert.equal((await statusOf(home)).status.state, 'alone');
  await assertEndsClean(daemon, home);
});

test('a command that finds no daemon ends with 69 and says what to do', async () => {
  await using home = await DaemonHome.create();
  const { code, out, err } = await layerswarm('status', '--config', home.config);
  assert.deepEqual([code, out], [69, '']);
  assert.match(err, /^layerswarm: daemon not running at .*systemctl start layerswarm\n$/);
});
