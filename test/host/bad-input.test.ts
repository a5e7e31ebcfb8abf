import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { readFile, rm, stat, writeFile } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import { join } from 'node:path';
import { after, suite, test } from 'node:test';
import { ContentClient } from './content-client.ts';
import { answersOn } from './lab/daemon.ts';
import { LoneDaemon } from './lone-daemon.ts';
import { NOTHING_LEFT, leftBehind } from './swarm-lab.ts';
import { until } from './wait.ts';

const HELLO = Buffer.from('hello');
const HELLO_DIGEST = `sha256:${createHash('sha256').update(HELLO).digest('hex')}`;

/** Exit codes of sysexits(3) and the product's own beyond them. */
const EXIT = { usage: 64, down: 69, config: 78, precondition: 80 } as const;
/** gRPC status numbers. */
const GRPC = { invalid_argument: 3, not_found: 5, unimplemented: 12, internal: 13 } as const;

suite('the daemon and input it must refuse', { timeout: 120_000 }, () => {
  after(async () => assert.deepEqual(await leftBehind(), NOTHING_LEFT));

  const configs = [
    {
      id: 'a mistyped key',
      replace: [['drain_ms = 2000', 'drain_mss = 2000']],
      names: ['drain_mss', 'drain_ms'],
    },
    {
      id: 'a value of the wrong type',
      replace: [['drain_ms = 2000', 'drain_ms = "soon"']],
      names: ['drain_ms', 'soon'],
    },
  ] as const;
  for (const { id, replace, names } of configs) {
    test(`${id} where the socket is told ends the start with 78 and a sentence that names file, key and value`, async () => {
      await using lone = await LoneDaemon.prepare();
      await lone.configure(replace);
      const { code, stderr } = await lone.failToStart();
      assert.equal(code, EXIT.config, stderr);
      for (const name of [lone.config, ...names]) assert.ok(stderr.includes(name), stderr);
      assert.ok(!stderr.includes('    at '), 'a stack trace is no explanation');
      await assert.rejects(stat(lone.socket), { code: 'ENOENT' });
    });
  }

  const served = [
    { id: 'an unknown section', replace: [['[log]', '[logs]']], names: ['logs', 'log'] },
    {
      id: 'a metrics address that other hosts reach',
      replace: [['listen = ""', 'listen = "0.0.0.0:9479"']],
      names: ['listen', '0.0.0.0:9479'],
    },
    { id: 'broken TOML', replace: [['[swarm]', '[swarm']], names: ['[swarm] (off)'] },
  ] as const;
  for (const { id, replace, names } of served) {
    test(`${id} costs only itself, and the status names file, key and value`, async () => {
      await using lone = await LoneDaemon.prepare();
      await lone.configure(replace);
      await lone.start();
      const { stdout } = await lone.cli(['status', '--socket', lone.socket]);
      for (const name of [lone.config, ...names]) assert.ok(stdout.includes(name), stdout);
      const strict = await lone.cli(['config', 'check', lone.config]);
      assert.equal(strict.code, EXIT.config);
    });
  }

  test('a configuration file that is not there is named', async () => {
    await using lone = await LoneDaemon.prepare();
    await rm(lone.config);
    const { code, stderr } = await lone.failToStart();
    assert.equal(code, EXIT.config);
    assert.ok(stderr.includes(lone.config), stderr);
  });

  test('a socket path that another program serves is left to it', async () => {
    await using lone = await LoneDaemon.prepare();
    const other = createServer((client) => client.end()).listen(lone.socket);
    await once(other, 'listening');
    try {
      const { code, stderr } = await lone.failToStart();
      assert.notEqual(code, 0);
      assert.ok(stderr.includes(lone.socket), stderr);
      assert.equal(await answersOn(lone.socket), true);
    } finally {
      other.close();
    }
    await lone.start();
  });

  test('a socket file that a killed daemon left is taken over', async () => {
    await using lone = await LoneDaemon.prepare();
    const child = await lone.start();
    child.kill('SIGKILL');
    await child.exited;
    await stat(lone.socket);
    await lone.start();
  });

  test('a file that is no socket at the socket path is not removed', async () => {
    await using lone = await LoneDaemon.prepare();
    await writeFile(lone.socket, 'precious');
    const { code, stderr } = await lone.failToStart();
    assert.notEqual(code, 0);
    assert.ok(stderr.includes(lone.socket), stderr);
    assert.equal(await readFile(lone.socket, 'utf8'), 'precious');
  });

  test('a missing content directory is an error that names it, and is not made', async () => {
    await using lone = await LoneDaemon.prepare();
    await rm(lone.content_dir, { recursive: true });
    const { code, stderr } = await lone.failToStart();
    assert.equal(code, EXIT.precondition, stderr);
    assert.ok(stderr.includes(lone.content_dir), stderr);
    await assert.rejects(stat(lone.content_dir), { code: 'ENOENT' });
  });

  test('a content directory that is a file is an error that names it', async () => {
    await using lone = await LoneDaemon.prepare();
    await rm(lone.content_dir, { recursive: true });
    await writeFile(lone.content_dir, '');
    const { code, stderr } = await lone.failToStart();
    assert.notEqual(code, 0);
    assert.ok(stderr.includes(lone.content_dir), stderr);
  });

  test('two daemons on one store: the second says who has it and the first goes on', async () => {
    await using first = await LoneDaemon.prepare();
    await using second = await LoneDaemon.prepare();
    const { pid } = await first.start();
    await second.configure([[second.content_dir, first.content_dir]]);
    const { code, stderr } = await second.failToStart();
    assert.equal(code, EXIT.precondition, stderr);
    assert.ok(stderr.includes(first.content_dir) && stderr.includes(String(pid)), stderr);
    using client = new ContentClient(first.socket);
    await assert.rejects(client.call('Info', { digest: HELLO_DIGEST }), { code: GRPC.not_found });
  });

  test('a mistyped command and a missing daemon are one sentence each', async () => {
    await using lone = await LoneDaemon.prepare();
    const typo = await lone.cli(['statsu']);
    assert.equal(typo.code, EXIT.usage, typo.stderr);
    const down = await lone.cli(['status', '--socket', lone.socket]);
    assert.equal(down.code, EXIT.down, down.stderr);
    assert.ok(down.stderr.includes(lone.socket), down.stderr);
    assert.equal(down.stderr.trim().split('\n').length, 1, down.stderr);
  });

  test('bytes that are no HTTP/2 end that connection and nothing else', async () => {
    await using lone = await LoneDaemon.prepare();
    await lone.start();
    for (const bytes of ['GET / HTTP/1.1\r\n\r\n', '\0'.repeat(4096), preface(9_000_000)]) {
      const socket = connect(lone.socket);
      socket.on('error', () => undefined);
      socket.resume();
      socket.write(bytes);
      await once(socket, 'close', { signal: AbortSignal.timeout(10_000) });
    }
    using client = new ContentClient(lone.socket);
    await assert.rejects(client.call('Info', { digest: HELLO_DIGEST }), { code: GRPC.not_found });
  });

  test('messages that are no protobuf, and methods that do not exist, are refused one by one', async () => {
    await using lone = await LoneDaemon.prepare();
    await lone.start();
    using client = new ContentClient(lone.socket);
    // An endless number, and a field of a wire type that does not exist.
    const garbage = [Buffer.alloc(64, 0xff), Buffer.from([0x7f, 0x00])];
    for (const bytes of garbage) {
      for (const name of ['Info', 'Update', 'Delete', 'Status', 'ListStatuses', 'Abort']) {
        await assert.rejects(client.raw(name, bytes), (error: { code?: number }) => {
          return error.code === GRPC.invalid_argument || error.code === GRPC.internal;
        });
      }
    }
    await assert.rejects(client.unknown('Nothing'), { code: GRPC.unimplemented });
    await assert.rejects(client.call('Info', { digest: HELLO_DIGEST }), { code: GRPC.not_found });
  });

  const digests = [
    'md5:d41d8cd98f00b204e9800998ecf8427e',
    'sha256:../../../etc/passwd',
    'sha256:AB',
    '',
  ];
  for (const digest of digests) {
    test(`the digest "${digest}" is an invalid argument everywhere`, async () => {
      await using lone = await LoneDaemon.prepare();
      await lone.start();
      using client = new ContentClient(lone.socket);
      const want = { code: GRPC.invalid_argument };
      await assert.rejects(client.call('Info', { digest }), want);
      await assert.rejects(client.call('Delete', { digest }), want);
      await assert.rejects(client.call('Update', { info: { digest } }), want);
      if (digest === '') return;
      const messages = [
        { action: 'STAT', ref: 'r', total: HELLO.length, expected: digest },
        { action: 'COMMIT', offset: 0, total: HELLO.length, expected: digest, data: HELLO },
      ];
      await assert.rejects(client.write(messages), want);
    });
  }

  const refs = [
    'a/b/c',
    '/',
    '../../escape',
    'default/1/layer-sha256:',
    'x'.repeat(2000),
    'späße\n\t"',
  ];
  for (const ref of refs) {
    test(`a ref like ${JSON.stringify(ref.slice(0, 30))} is a name and never a path`, async () => {
      await using lone = await LoneDaemon.prepare();
      await lone.start();
      using client = new ContentClient(lone.socket);
      const open = { action: 'STAT', ref, total: HELLO.length };
      await client.write([open, { action: 'WRITE', ref, offset: 0, data: HELLO }]);
      const { status } = await client.call<{ status: { ref: string; offset: number } }>('Status', {
        ref,
      });
      assert.deepEqual([status.ref, status.offset], [ref, HELLO.length]);
      const commit = { action: 'COMMIT', offset: HELLO.length, expected: HELLO_DIGEST };
      // The first stream's lock may be a moment older than its end, as with containerd's own store.
      const answers = await until('a free ref', () => client.write([open, commit]));
      assert.equal(answers.at(-1)?.digest, HELLO_DIGEST);
      const { info } = await client.call<{ info: { size: number } }>('Info', {
        digest: HELLO_DIGEST,
      });
      assert.equal(info.size, HELLO.length);
      const blob = join(lone.content_dir, 'blobs', HELLO_DIGEST.replace(':', '/'));
      assert.deepEqual(await readFile(blob), HELLO);
    });
  }
});

/** HTTP/2's opening and a DATA frame that claims `length` bytes. */
function preface(length: number): Buffer {
  const frame = Buffer.alloc(9);
  frame.writeUIntBE(length, 0, 3);
  frame.writeUInt32BE(1, 5);
  return Buffer.concat([Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'), frame]);
}
