import assert from 'node:assert/strict';
import { test } from 'node:test';
import { encodeFrame, FLAG, FRAME, H2_CODE } from '../../src/rpc/h2/frames.ts';
import { encodeLiteral } from '../../src/rpc/h2/hpack.ts';
import { Bench } from '../contract/server-suite.ts';
import { METHODS } from './echo-service.ts';
import { dataFrame, grpcMessage, headersFrame, RawPeer, requestFields } from './raw-peer.ts';

const SAY = requestFields(METHODS.say.path);
const TALK = requestFields(METHODS.talk.path);
const READ = requestFields(METHODS.read.path);
const END = FLAG.end_stream;

function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

function setting(id: number, value: number): Buffer {
  return Buffer.concat([Buffer.of(0, id), uint32(value)]);
}

/** What breaks one stream only: the RST_STREAM code, while the connection lives on. */
const RESETS: readonly (readonly [
  id: string,
  code: keyof typeof H2_CODE,
  bytes: () => Uint8Array[],
])[] = [
  [
    'stream window update of 0',
    'protocol_error',
    () => [headersFrame(1, TALK), encodeFrame(FRAME.window_update, 0, 1, uint32(0))],
  ],
  [
    'stream window overflow',
    'flow_control_error',
    () => [headersFrame(1, TALK), encodeFrame(FRAME.window_update, 0, 1, uint32(2 ** 31 - 1))],
  ],
  [
    'request without a path',
    'protocol_error',
    () => [
      headersFrame(1, [
        [':method', 'POST'],
        [':scheme', 'http'],
      ]),
    ],
  ],
  ['upper case header name', 'protocol_error', () => [headersFrame(1, [...SAY, ['Bad', 'x']])]],
  ['pseudo-header after a header', 'protocol_error', () => [headersFrame(1, [['a', 'b'], ...SAY])]],
  [
    'trailers that do not end the stream',
    'protocol_error',
    () => [headersFrame(1, TALK), headersFrame(1, [['a', 'b']])],
  ],
  [
    'DATA after the end',
    'stream_closed',
    () => [
      headersFrame(1, SAY),
      dataFrame(1, grpcMessage(Buffer.from('\x0a\x04hang')), END),
      dataFrame(1, Buffer.alloc(1)),
    ],
  ],
];

test('h2: a breach on one stream resets that stream and leaves the connection', async (t) => {
  await using bench = await Bench.start('h2');
  for (const [id, code, bytes] of RESETS) {
    await t.test(id, async () => {
      using peer = new RawPeer(bench.path);
      peer.hello().send(...bytes());
      assert.equal(await peer.reset(1), H2_CODE[code]);
      peer.send(headersFrame(9, SAY), dataFrame(9, grpcMessage(Buffer.alloc(0)), END));
      assert.match((await peer.trailers(9)) ?? '', /grpc-status\x010/);
    });
  }
});

/** What gRPC itself forbids: a status. */
const STATUSES: readonly (readonly [id: string, status: RegExp, bytes: () => Uint8Array[]])[] = [
  [
    'compressed message',
    /grpc-status\x0212/,
    () => [headersFrame(1, SAY), dataFrame(1, grpcMessage(Buffer.of(1), 1), END)],
  ],
  [
    'message larger than the limit',
    /grpc-status\x018/,
    () => [headersFrame(1, SAY), dataFrame(1, Buffer.of(0, 0x7f, 0, 0, 0))],
  ],
  ['no message', /grpc-status\x0213/, () => [headersFrame(1, SAY, END)]],
  [
    'half a message',
    /grpc-status\x0213/,
    () => [headersFrame(1, SAY), dataFrame(1, Buffer.of(0, 0, 0, 0, 9, 1), END)],
  ],
  [
    'half a prefix',
    /grpc-status\x0213/,
    () => [headersFrame(1, READ), dataFrame(1, Buffer.of(0, 0), END)],
  ],
  [
    'two messages',
    /grpc-status\x0213/,
    () => [
      headersFrame(1, SAY),
      dataFrame(
        1,
        Buffer.concat([grpcMessage(Buffer.alloc(0)), grpcMessage(Buffer.alloc(0))]),
        END,
      ),
    ],
  ],
  [
    'malformed message on the hot path',
    /grpc-status\x013/,
    () => [headersFrame(1, READ), dataFrame(1, grpcMessage(Buffer.of(0xff)), END)],
  ],
  [
    'method of no door',
    /grpc-status\x0212/,
    () => [headersFrame(1, requestFields('/a/b')), dataFrame(1, grpcMessage(Buffer.alloc(0)), END)],
  ],
  [
    'wrong content type',
    /:status\x03415/,
    () => [headersFrame(1, [...SAY.slice(0, 3), ['content-type', 'text/html']])],
  ],
  [
    'wrong verb',
    /:status\x03405/,
    () => [headersFrame(1, [[':method', 'GET'], ...SAY.slice(1)], END)],
  ],
  [
    'sending on without waiting',
    /grpc-status\x018/,
    () => [
      headersFrame(1, TALK),
      dataFrame(1, grpcMessage(Buffer.from('\x0a\x04hang'))),
      ...Array.from({ length: 70 }, () => dataFrame(1, grpcMessage(Buffer.alloc(0)))),
    ],
  ],
];

test('h2: a broken call gets a status and the connection lives on', async (t) => {
  await using bench = await Bench.start('h2');
  for (const [id, status, bytes] of STATUSES) {
    await t.test(id, async () => {
      using peer = new RawPeer(bench.path);
      peer.hello().send(...bytes());
      assert.match((await peer.trailers(1)) ?? '', status);
      peer.send(headersFrame(9, SAY), dataFrame(9, grpcMessage(Buffer.alloc(0)), END));
      assert.match((await peer.trailers(9)) ?? '', /grpc-status\x010/);
    });
  }
});

test('h2: DATA on a stream that is over is answered with STREAM_CLOSED', async () => {
  await using bench = await Bench.start('h2');
  using peer = new RawPeer(bench.path);
  peer.hello().send(headersFrame(1, SAY), dataFrame(1, grpcMessage(Buffer.alloc(0)), END));
  await peer.trailers(1);
  peer.send(dataFrame(1, Buffer.alloc(3)));
  assert.equal(await peer.reset(1), H2_CODE.stream_closed);
});

test('h2: padding, priority, CONTINUATION, unknown frames and trailers are understood', async () => {
  await using bench = await Bench.start('h2');
  using peer = new RawPeer(bench.path);
  const block = encodeLiteral(SAY);
  const padded = Buffer.concat([
    Buffer.of(3),
    Buffer.alloc(5),
    block.subarray(0, 20),
    Buffer.alloc(3),
  ]);
  const message = Buffer.concat([
    Buffer.of(2),
    grpcMessage(Buffer.from('\x0a\x02ok')),
    Buffer.alloc(2),
  ]);
  peer
    .hello()
    .send(
      encodeFrame(0x77, 0xff, 3, Buffer.alloc(10)),
      encodeFrame(FRAME.priority, 0, 1, Buffer.alloc(5)),
      encodeFrame(FRAME.headers, FLAG.padded | FLAG.priority, 1, padded),
      encodeFrame(FRAME.continuation, 0, 1, block.subarray(20, 40)),
      encodeFrame(FRAME.continuation, FLAG.end_headers, 1, block.subarray(40)),
      dataFrame(1, message, FLAG.padded),
      headersFrame(1, [['some-trailer', 'x']], END),
    );
  assert.match((await peer.trailers(1)) ?? '', /grpc-status\x010/);
  const answer = await peer.frame(({ type, id }) => type === FRAME.data && id === 1);
  assert.equal(METHODS.say.decodeResponse(answer!.payload.subarray(5)).text, 'ok');
});

test('h2: send windows are kept to the byte, also when SETTINGS make them negative', async () => {
  await using bench = await Bench.start('h2');
  using peer = new RawPeer(bench.path);
  const received = (): number =>
    peer.frames.filter((f) => f.type === FRAME.data).reduce((sum, f) => sum + f.payload.length, 0);
  const acks = (): number =>
    peer.frames.filter((f) => f.type === FRAME.ping && f.flags === 1).length;
  const settled = async (): Promise<void> => {
    const before = acks();
    peer.send(encodeFrame(FRAME.ping, 0, 0, Buffer.alloc(8)));
    await peer.frame(() => acks() > before);
  };
  const request = Buffer.from(METHODS.read.encodeRequest({ count: 1, bytes: 50_000 }));
  peer.hello([[4, 100]]).send(headersFrame(1, READ), dataFrame(1, grpcMessage(request), END));
  await settled();
  assert.equal(received(), 100);
  peer.send(encodeFrame(FRAME.settings, 0, 0, setting(4, 40)));
  peer.send(encodeFrame(FRAME.window_update, 0, 1, uint32(70)));
  await settled();
  assert.equal(received(), 110);
  peer.send(encodeFrame(FRAME.settings, 0, 0, setting(4, 1000)));
  await settled();
  assert.equal(received(), 1070);
  peer.send(encodeFrame(FRAME.window_update, 0, 1, uint32(100_000)));
  assert.match((await peer.trailers(1)) ?? '', /grpc-status\x010/);
  assert.equal(received(), 50_000 + 5 + 4);
});

test('h2: a stream that sends more than its window is reset with FLOW_CONTROL_ERROR', async () => {
  await using bench = await Bench.start('h2');
  using peer = new RawPeer(bench.path);
  peer.hello().send(headersFrame(1, TALK), dataFrame(1, grpcMessage(Buffer.from('\x0a\x04hang'))));
  const waiting = dataFrame(1, grpcMessage(Buffer.alloc(16_000)));
  const message = Buffer.concat([Buffer.of(0, 0, 0x80, 0, 0), Buffer.alloc(8 * 1024 * 1024)]);
  peer.send(waiting);
  for (let round = 0; round < 3; round++) {
    for (let pos = 0; pos < message.length; pos += 16_000) {
      peer.send(dataFrame(1, message.subarray(pos, pos + 16_000)));
    }
  }
  assert.equal(await peer.reset(1), H2_CODE.flow_control_error);
});

test('h2: calls beyond the announced number are refused, and the others go on', async () => {
  await using bench = await Bench.start('h2');
  using peer = new RawPeer(bench.path);
  peer.hello().send(...Array.from({ length: 1001 }, (_, i) => headersFrame(2 * i + 1, TALK)));
  assert.equal(await peer.reset(2001), H2_CODE.refused_stream);
  peer.send(dataFrame(1, grpcMessage(Buffer.alloc(0)), END));
  assert.match((await peer.trailers(1)) ?? '', /grpc-status\x010/);
});

test('h2: a client that asks and never reads is cut off, with bounded memory', async () => {
  await using bench = await Bench.start('h2');
  using peer = new RawPeer(bench.path);
  peer.hello();
  await peer.frame(({ type }) => type === FRAME.settings);
  peer.socket.pause();
  const pings = Buffer.concat(
    Array.from({ length: 4000 }, () => encodeFrame(FRAME.ping, 0, 0, Buffer.alloc(8))),
  );
  const cut = new Promise<void>((resolve) => peer.socket.on('error', () => resolve()));
  const flood = (): void => {
    while (!peer.socket.destroyed && peer.socket.write(pings));
  };
  peer.socket.on('drain', flood);
  flood();
  await Promise.race([cut, peer.closed]);
  assert.ok(bench.logger.lines.some(({ message }) => message.includes('it broke HTTP/2')));
});

test('h2: ten thousand reset calls on one connection are no reason to end it', async () => {
  await using bench = await Bench.start('h2');
  using peer = new RawPeer(bench.path);
  peer.hello();
  const request = grpcMessage(METHODS.read.encodeRequest({ count: 3, bytes: 10 }));
  for (let i = 0; i < 10_000; i++) {
    const id = 2 * i + 1;
    peer.send(
      headersFrame(id, READ),
      dataFrame(id, request, END),
      encodeFrame(FRAME.rst_stream, 0, id, uint32(H2_CODE.cancel)),
    );
    if (i % 200 === 0) await new Promise((resolve) => setImmediate(resolve));
  }
  peer.send(headersFrame(30_001, SAY), dataFrame(30_001, grpcMessage(Buffer.alloc(0)), END));
  assert.match((await peer.trailers(30_001)) ?? '', /grpc-status\x010/);
  assert.ok(!peer.frames.some(({ type }) => type === FRAME.goaway));
});
