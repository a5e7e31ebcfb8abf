import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type ClientHttp2Session, connect as connectHttp2, constants } from 'node:http2';
import { connect } from 'node:net';
import { test } from 'node:test';
import { PrometheusRegister } from '../../src/ops/register.ts';
import { encodeFrame, FLAG, FRAME, H2_CODE } from '../../src/rpc/h2/frames.ts';
import { listen } from '../../src/rpc/listen.ts';
import { FakeClock } from '../fakes/fake-clock.ts';
import { MemoryLogger } from '../fakes/memory-logger.ts';
import { Bench } from '../contract/server-suite.ts';
import { EchoService, METHODS } from './echo-service.ts';
import {
  dataFrame,
  grpcMessage,
  headersFrame,
  RawPeer,
  requestFields,
  type SeenFrame,
} from './raw-peer.ts';

function session(path: string): ClientHttp2Session {
  return connectHttp2('http://localhost', { createConnection: () => connect(path) });
}

type Answer = { readonly status: string | undefined; readonly body: Buffer };

async function call(client: ClientHttp2Session, path: string, body: Uint8Array): Promise<Answer> {
  const stream = client.request({
    ':method': 'POST',
    ':path': path,
    'content-type': 'application/grpc+proto',
    te: 'trailers',
    'user-agent': 'a client with Huffman and dynamic table',
  });
  const trailers = once(stream, 'trailers') as Promise<[Record<string, string>]>;
  stream.end(grpcMessage(body));
  const chunks: Buffer[] = [];
  for await (const chunk of stream) chunks.push(chunk as Buffer);
  return { status: (await trailers)[0]['grpc-status'], body: Buffer.concat(chunks) };
}

test('h2: a node:http2 client that calls before it has our SETTINGS is understood throughout', async () => {
  await using bench = await Bench.start('h2');
  const client = session(bench.path);
  const request = Buffer.from(METHODS.say.encodeRequest({ text: 'hello' }));
  const early = Array.from({ length: 20 }, () => call(client, METHODS.say.path, request));
  for (const { status } of await Promise.all(early)) assert.equal(status, '0');
  for (let i = 0; i < 50; i++) {
    const bytes = 1000 * i;
    const read = Buffer.from(METHODS.read.encodeRequest({ count: 1, bytes }));
    const { status, body } = await call(client, METHODS.read.path, read);
    assert.equal(status, '0');
    assert.equal(METHODS.read.decodeResponse(body.subarray(5)).data.length, bytes);
  }
  client.close();
  await once(client, 'close');
});

test('h2: a client that announces 1 MiB frames gets its answers in such', async () => {
  await using bench = await Bench.start('h2');
  const client = connectHttp2('http://localhost', {
    createConnection: () => connect(bench.path),
    settings: { maxFrameSize: 1 << 20, initialWindowSize: 1 << 22 },
  });
  await once(client, 'remoteSettings');
  client.setLocalWindowSize(1 << 22);
  const read = Buffer.from(METHODS.read.encodeRequest({ count: 1, bytes: 2_000_000 }));
  const { body } = await call(client, METHODS.read.path, read);
  assert.equal(METHODS.read.decodeResponse(body.subarray(5)).data.length, 2_000_000);
  client.destroy();
});

test('h2: five thousand cancelled Reads leave the connection as it was', async () => {
  await using bench = await Bench.start('h2');
  const client = session(bench.path);
  let goaways = 0;
  client.on('goaway', () => goaways++);
  const body = grpcMessage(METHODS.read.encodeRequest({ count: 1, bytes: 32_768 }));
  for (let i = 0; i < 5000; i++) {
    const stream = client.request({ ':method': 'POST', ':path': METHODS.read.path });
    stream.on('error', () => undefined);
    const closed = once(stream, 'close');
    stream.end(body);
    // containerd: cancels as soon as it has its bytes, sometimes before.
    if (i % 3 > 0) await once(stream, 'data');
    stream.close(constants.NGHTTP2_CANCEL);
    await closed;
  }
  const { status } = await call(client, METHODS.say.path, Buffer.alloc(0));
  assert.equal(status, '0');
  assert.equal(goaways, 0);
  client.destroy();
});

test('h2: a drain says GOAWAY, serves what comes before the client knows, then names the last call', async () => {
  // The clock stands still: only what is really over ends the drain.
  await using bench = await Bench.start('h2', new FakeClock());
  using peer = new RawPeer(bench.path);
  const say = (id: number, text: string): Buffer =>
    Buffer.concat([
      headersFrame(id, requestFields(METHODS.say.path)),
      dataFrame(id, grpcMessage(METHODS.say.encodeRequest({ text })), FLAG.end_stream),
    ]);
  peer.hello().send(say(1, 'gate'));
  await bench.echo.until(() => bench.echo.hanging.length === 1);
  const drained = bench.listening.drain(20_000);
  const ping = await peer.frame(({ type }) => type === FRAME.ping);
  peer.send(say(3, 'late'));
  assert.match((await peer.trailers(3)) ?? '', /grpc-status\x010/);
  peer.send(encodeFrame(FRAME.ping, FLAG.ack, 0, ping!.payload));
  const isGoaway = ({ type }: SeenFrame): boolean => type === FRAME.goaway;
  await peer.frame((frame) => isGoaway(frame) && frame.payload.readUInt32BE(0) === 3);
  peer.send(say(5, 'too late'));
  assert.equal(await peer.reset(5), H2_CODE.refused_stream);
  bench.echo.gate.resolve(undefined);
  assert.match((await peer.trailers(1)) ?? '', /grpc-status\x010/);
  await peer.closed;
  assert.deepEqual(
    peer.frames.filter(isGoaway).map(({ payload }) => payload.readUInt32BE(0)),
    [2 ** 31 - 1, 3],
  );
  bench.client[Symbol.dispose]();
  await drained;
});

test('h2: a scrape shows calls by method and code, immediate ones included, and open connections', async (t) => {
  const register = new PrometheusRegister();
  const path = `/tmp/rpc-scrape-${process.pid}`;
  const table = new EchoService().table();
  await using stack = new AsyncDisposableStack();
  stack.use(
    await listen(
      { table, logger: new MemoryLogger(), register, server: 'h2' },
      { socket_path: path },
    ),
  );
  const client = session(path);
  t.after(() => client.destroy());
  const read = Buffer.from(METHODS.read.encodeRequest({ count: 1, bytes: 10 }));
  for (let i = 0; i < 3; i++) await call(client, METHODS.read.path, read);
  await call(client, METHODS.say.path, Buffer.alloc(0));
  const text = await register.text();
  assert.match(text, /rpc_calls_total\{method="\/layerswarm.test.Echo\/Read",code="ok"\} 3/);
  assert.match(text, /rpc_calls_total\{method="\/layerswarm.test.Echo\/Say",code="ok"\} 1/);
  assert.match(text, /rpc_open_connections 1/);
  assert.match(text, /rpc_first_answer_seconds_count\{method="\/layerswarm.test.Echo\/Say"\} 1/);
});
