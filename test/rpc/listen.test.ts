import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, linkSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createConnection, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { connect } from '../../src/rpc/client.ts';
import { type Listening, listen, openSocket } from '../../src/rpc/listen.ts';
import { FakeClock } from '../fakes/fake-clock.ts';
import { MemoryLogger } from '../fakes/memory-logger.ts';
import { MemoryRegister } from '../fakes/memory-register.ts';
import { EchoService, METHODS } from './echo-service.ts';

function directoryOf(t: TestContext): string {
  const directory = mkdtempSync(`${tmpdir()}/listen-`);
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

function serve(
  socket_path: string,
  more: { mode?: number; socket_fd?: number } = {},
): Promise<Listening> {
  return listen(
    {
      table: new EchoService().table(),
      logger: new MemoryLogger(),
      register: new MemoryRegister(),
      server: 'h2',
    },
    { socket_path, ...more },
  );
}

async function say(path: string): Promise<string> {
  using client = await connect(path);
  return (await client.unary(METHODS.say, { text: 'there' }, { deadline_ms: 20_000 })).text;
}

test('a socket file is private, has the mode it was given, and goes with its server', async (t) => {
  const path = `${directoryOf(t)}/s`;
  {
    await using stack = new AsyncDisposableStack();
    stack.use(await serve(path));
    assert.equal(statSync(path).mode & 0o777, 0o600);
    assert.equal(await say(path), 'there');
  }
  assert.ok(!existsSync(path));
  await using stack = new AsyncDisposableStack();
  stack.use(await serve(path, { mode: 0o660 }));
  assert.equal(statSync(path).mode & 0o777, 0o660);
});

test('the file of a killed server is replaced', async (t) => {
  const path = `${directoryOf(t)}/s`;
  const killed = spawn(process.execPath, [
    '-e',
    `require('net').createServer().listen(${JSON.stringify(path)}, () => console.log('up'))`,
  ]);
  await once(killed.stdout, 'data');
  killed.kill('SIGKILL');
  await once(killed, 'exit');
  assert.ok(existsSync(path));
  await using stack = new AsyncDisposableStack();
  stack.use(await serve(path));
  assert.equal(await say(path), 'there');
});

test('a path that somebody serves, or that is a file, is refused and left alone', async (t) => {
  const path = `${directoryOf(t)}/s`;
  await using stack = new AsyncDisposableStack();
  stack.use(await serve(path));
  await assert.rejects(serve(path), {
    code: 'failed_precondition',
    message: /in use by another daemon/,
  });
  assert.equal(await say(path), 'there');
  writeFileSync(`${path}.txt`, 'a file');
  await assert.rejects(serve(`${path}.txt`), { code: 'failed_precondition' });
  assert.ok(existsSync(`${path}.txt`));
});

test('a missing directory and a path that is too long are said clearly', async (t) => {
  const directory = directoryOf(t);
  await assert.rejects(serve(`${directory}/no/s`), {
    code: 'not_found',
    message: `directory ${directory}/no of the socket does not exist; create it, or set another socket_path`,
  });
  const long = `${directory}/${'x'.repeat(107)}`;
  await assert.rejects(serve(long), { code: 'config_invalid', message: /107 bytes/ });
});

/**
 * A socket that listens and that nobody accepts from, but the process that inherits its descriptor, as systemd gives it.
 * Node unlinks a socket it made when it closes it: a second name of the file survives that.
 */
async function activate(t: TestContext, path: string, server: string): Promise<ChildProcess> {
  const maker = createServer();
  maker.listen(`${path}.made`);
  await once(maker, 'listening');
  linkSync(`${path}.made`, path);
  const { fd } = (maker as unknown as { _handle: { fd: number } })._handle;
  const script = fileURLToPath(new URL('inherited-server.ts', import.meta.url));
  const child = spawn(process.execPath, [script, path, server], {
    stdio: ['ignore', 'pipe', 'inherit', fd],
  });
  t.after(() => child.kill('SIGKILL'));
  await once(child.stdout!, 'data');
  maker.close();
  return child;
}

for (const server of ['h2', 'grpc-js']) {
  test(`${server}: an inherited socket is served, drained on request, and its file stays`, async (t) => {
    const path = `${directoryOf(t)}/s`;
    const child = await activate(t, path, server);
    assert.equal(await say(path), 'there');
    using client = await connect(path);
    const answers = client.stream(
      METHODS.count,
      { count: 50, bytes: 100_000 },
      { deadline_ms: 20_000 },
    );
    let seen = 0;
    for await (const { number } of answers) {
      seen = number + 1;
      if (seen === 1) child.kill('SIGTERM');
    }
    assert.equal(seen, 50);
    client[Symbol.dispose]();
    const [code] = (await once(child, 'exit')) as [number];
    assert.equal(code, 0);
    assert.ok(existsSync(path));
  });
}

test('a client is told that no daemon runs, and how to start it', async (t) => {
  const path = `${directoryOf(t)}/s`;
  const expected = {
    code: 'unavailable',
    message: `daemon not running at ${path}: start it with systemctl start layerswarm`,
  };
  await assert.rejects(connect(path), expected);
  const listening = await serve(path);
  using client = await connect(path);
  await listening[Symbol.asyncDispose]();
  await assert.rejects(client.unary(METHODS.say, { text: '' }, { deadline_ms: 20_000 }), expected);
});

for (const server of ['h2', 'grpc-js'] as const) {
  test(`${server}: a client that connects before there is a service waits and is served`, async (t) => {
    const path = `${directoryOf(t)}/early.sock`;
    // A clock that stands still: the drain ends when all are gone, or never.
    const clock = new FakeClock();
    const modules = { logger: new MemoryLogger(), register: new MemoryRegister(), server, clock };
    await using socket = await openSocket(modules, { socket_path: path });
    const early = createConnection(path);
    t.after(() => early.destroy());
    // Its first word is the server's greeting; grpc-js has none before it runs.
    if (server === 'h2') assert.equal(((await once(early, 'data')) as [Buffer])[0][3], 4);
    const said = say(path);
    const table = new EchoService().table();
    await using listening = await listen({ ...modules, table }, socket);
    assert.equal(await said, 'there');
    // Our server ends a connection without calls. grpc-js tells its client to go, which this one does not understand.
    const ended = once(early, 'close');
    if (server === 'grpc-js') early.destroy();
    await listening.drain(20_000);
    await ended;
  });
}

test('a client that waited for the service and hangs up is let go', async (t) => {
  const path = `${directoryOf(t)}/early.sock`;
  // A clock that stands still: no timeout ends the connection instead.
  const clock = new FakeClock();
  const modules = { logger: new MemoryLogger(), register: new MemoryRegister(), clock };
  await using socket = await openSocket({ ...modules, server: 'h2' }, { socket_path: path });
  const early = createConnection(path);
  await once(early, 'data');
  await using listening = await listen(
    { ...modules, server: 'h2', table: new EchoService().table() },
    socket,
  );
  early.end();
  await once(early, 'close');
  await listening.drain(20_000);
});

test('a socket that is closed before there is a service ends who waited', async (t) => {
  const path = `${directoryOf(t)}/early.sock`;
  const modules = { logger: new MemoryLogger(), server: 'h2' } as const;
  const socket = await openSocket(modules, { socket_path: path });
  const early = createConnection(path);
  await once(early, 'data');
  socket.close();
  await once(early, 'close');
  assert.equal(existsSync(path), false);
});
