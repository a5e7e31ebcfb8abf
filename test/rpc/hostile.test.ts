import assert from 'node:assert/strict';
import { test } from 'node:test';
import { encodeFrame, FLAG, FRAME, H2_CODE, PREFACE } from '../../src/rpc/h2/frames.ts';
import { Bench } from '../contract/server-suite.ts';
import { METHODS } from './echo-service.ts';
import { dataFrame, grpcMessage, headersFrame, RawPeer, requestFields } from './raw-peer.ts';

const SAY = requestFields(METHODS.say.path);
const TALK = requestFields(METHODS.talk.path);
const HELLO = Buffer.concat([PREFACE, encodeFrame(FRAME.settings, 0, 0)]);
const END = FLAG.end_stream;

/** What breaks a connection, and the code of the GOAWAY it gets. */
type ConnectionCase = readonly [id: string, code: keyof typeof H2_CODE, bytes: () => Uint8Array[]];

function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

function setting(id: number, value: number): Buffer {
  return Buffer.concat([Buffer.of(0, id), uint32(value)]);
}

const BROKEN: readonly ConnectionCase[] = [
  ['another preface', 'protocol_error', () => [Buffer.from('GET / HTTP/1.1\r\nHost: x\r\n\r\n')]],
  [
    'no SETTINGS first',
    'protocol_error',
    () => [PREFACE, encodeFrame(FRAME.ping, 0, 0, Buffer.alloc(8))],
  ],
  [
    'oversize frame',
    'frame_size_error',
    () => [HELLO, encodeFrame(FRAME.data, 0, 1, Buffer.alloc(16_385))],
  ],
  [
    'SETTINGS of odd length',
    'frame_size_error',
    () => [HELLO, encodeFrame(FRAME.settings, 0, 0, Buffer.alloc(5))],
  ],
  ['SETTINGS on a stream', 'protocol_error', () => [HELLO, encodeFrame(FRAME.settings, 0, 1)]],
  [
    'SETTINGS ack with payload',
    'frame_size_error',
    () => [HELLO, encodeFrame(FRAME.settings, FLAG.ack, 0, Buffer.alloc(6))],
  ],
  [
    'initial window too large',
    'flow_control_error',
    () => [HELLO, encodeFrame(FRAME.settings, 0, 0, setting(4, 2 ** 31))],
  ],
  [
    'max frame too small',
    'protocol_error',
    () => [HELLO, encodeFrame(FRAME.settings, 0, 0, setting(5, 100))],
  ],
  [
    'push enabled by 2',
    'protocol_error',
    () => [HELLO, encodeFrame(FRAME.settings, 0, 0, setting(2, 2))],
  ],
  [
    'connection window overflow',
    'flow_control_error',
    () => [HELLO, encodeFrame(FRAME.window_update, 0, 0, uint32(2 ** 31 - 1))],
  ],
  [
    'connection window update of 0',
    'protocol_error',
    () => [HELLO, encodeFrame(FRAME.window_update, 0, 0, uint32(0))],
  ],
  [
    'short WINDOW_UPDATE',
    'frame_size_error',
    () => [HELLO, encodeFrame(FRAME.window_update, 0, 0, Buffer.alloc(3))],
  ],
  [
    'stream window overflow by SETTINGS',
    'flow_control_error',
    () => [
      HELLO,
      headersFrame(1, TALK),
      encodeFrame(FRAME.window_update, 0, 1, uint32(2 ** 31 - 1 - 65_535)),
      encodeFrame(FRAME.settings, 0, 0, setting(4, 70_000)),
    ],
  ],
  [
    'PING of 7 bytes',
    'frame_size_error',
    () => [HELLO, encodeFrame(FRAME.ping, 0, 0, Buffer.alloc(7))],
  ],
  [
    'PING on a stream',
    'protocol_error',
    () => [HELLO, encodeFrame(FRAME.ping, 0, 1, Buffer.alloc(8))],
  ],
  ['DATA on stream 0', 'protocol_error', () => [HELLO, dataFrame(0, Buffer.alloc(1))]],
  ['DATA on an idle stream', 'protocol_error', () => [HELLO, dataFrame(7, Buffer.alloc(1))]],
  [
    'RST_STREAM on an idle stream',
    'protocol_error',
    () => [HELLO, encodeFrame(FRAME.rst_stream, 0, 7, uint32(8))],
  ],
  [
    'short RST_STREAM',
    'frame_size_error',
    () => [HELLO, headersFrame(1, TALK), encodeFrame(FRAME.rst_stream, 0, 1, Buffer.alloc(3))],
  ],
  ['even stream', 'protocol_error', () => [HELLO, headersFrame(2, SAY)]],
  ['stream 0', 'protocol_error', () => [HELLO, headersFrame(0, SAY)]],
  [
    'PUSH_PROMISE',
    'protocol_error',
    () => [HELLO, encodeFrame(FRAME.push_promise, 0, 1, Buffer.alloc(4))],
  ],
  [
    'PRIORITY on stream 0',
    'protocol_error',
    () => [HELLO, encodeFrame(FRAME.priority, 0, 0, Buffer.alloc(5))],
  ],
  [
    'PRIORITY of 4 bytes',
    'frame_size_error',
    () => [HELLO, encodeFrame(FRAME.priority, 0, 1, Buffer.alloc(4))],
  ],
  [
    'short GOAWAY',
    'frame_size_error',
    () => [HELLO, encodeFrame(FRAME.goaway, 0, 0, Buffer.alloc(4))],
  ],
  [
    'padding longer than its frame',
    'protocol_error',
    () => [HELLO, headersFrame(1, TALK), dataFrame(1, Buffer.of(9, 0), FLAG.padded)],
  ],
  [
    'padding without a length',
    'protocol_error',
    () => [HELLO, headersFrame(1, TALK), dataFrame(1, Buffer.alloc(0), FLAG.padded)],
  ],
  [
    'HEADERS without room for its priority',
    'frame_size_error',
    () => [HELLO, encodeFrame(FRAME.headers, FLAG.end_headers | FLAG.priority, 1, Buffer.alloc(3))],
  ],
  [
    'index of no entry',
    'compression_error',
    () => [HELLO, encodeFrame(FRAME.headers, FLAG.end_headers, 1, Buffer.of(0xff, 0x70))],
  ],
  [
    'index 0',
    'compression_error',
    () => [HELLO, encodeFrame(FRAME.headers, FLAG.end_headers, 1, Buffer.of(0x80))],
  ],
  [
    'endless integer',
    'compression_error',
    () => [HELLO, encodeFrame(FRAME.headers, FLAG.end_headers, 1, Buffer.alloc(20, 0xff))],
  ],
  [
    'string beyond its block',
    'compression_error',
    () => [HELLO, encodeFrame(FRAME.headers, FLAG.end_headers, 1, Buffer.of(0x00, 0x7f, 0x20))],
  ],
  [
    'bad Huffman padding',
    'compression_error',
    () => [
      HELLO,
      encodeFrame(FRAME.headers, FLAG.end_headers, 1, Buffer.of(0x00, 0x81, 0x00, 0x00)),
    ],
  ],
  [
    'table size beyond the limit',
    'compression_error',
    () => [HELLO, encodeFrame(FRAME.headers, FLAG.end_headers, 1, Buffer.of(0x3f, 0xff, 0x7f))],
  ],
  [
    'dynamic entry after the table was forbidden',
    'compression_error',
    () => [
      HELLO,
      encodeFrame(FRAME.settings, FLAG.ack, 0),
      encodeFrame(
        FRAME.headers,
        FLAG.end_headers,
        1,
        Buffer.concat([Buffer.of(0x40, 1, 0x61, 1, 0x62), Buffer.of(0xbe)]),
      ),
    ],
  ],
  [
    'header bomb by references',
    'enhance_your_calm',
    () => [
      HELLO,
      encodeFrame(
        FRAME.headers,
        FLAG.end_headers,
        1,
        Buffer.concat([
          Buffer.of(0x40, 0x01, 0x61, 0x7f, 0x81, 0x1e),
          Buffer.alloc(4000, 'v'),
          Buffer.alloc(8000, 0xbe),
        ]),
      ),
    ],
  ],
  [
    'header block without end',
    'enhance_your_calm',
    () => [
      HELLO,
      encodeFrame(FRAME.headers, 0, 1, Buffer.alloc(16_000)),
      ...Array.from({ length: 6 }, () =>
        encodeFrame(FRAME.continuation, 0, 1, Buffer.alloc(16_000)),
      ),
    ],
  ],
  [
    'flood of empty CONTINUATION',
    'enhance_your_calm',
    () => [
      HELLO,
      encodeFrame(FRAME.headers, 0, 1),
      ...Array.from({ length: 500 }, () => encodeFrame(FRAME.continuation, 0, 1)),
    ],
  ],
  [
    'frame inside a header block',
    'protocol_error',
    () => [HELLO, encodeFrame(FRAME.headers, 0, 1), encodeFrame(FRAME.ping, 0, 0, Buffer.alloc(8))],
  ],
  [
    'CONTINUATION of nothing',
    'protocol_error',
    () => [HELLO, encodeFrame(FRAME.continuation, FLAG.end_headers, 1)],
  ],
  [
    'CONTINUATION of another stream',
    'protocol_error',
    () => [
      HELLO,
      encodeFrame(FRAME.headers, 0, 1),
      encodeFrame(FRAME.continuation, FLAG.end_headers, 3),
    ],
  ],
  [
    'HEADERS on a closed stream',
    'stream_closed',
    () => [HELLO, headersFrame(5, SAY, END), headersFrame(3, SAY, END)],
  ],
];

test('h2: each breach of the protocol ends its connection with its code, and the next one is served', async (t) => {
  await using bench = await Bench.start('h2');
  for (const [id, code, bytes] of BROKEN) {
    await t.test(id, async () => {
      using peer = new RawPeer(bench.path);
      peer.send(...bytes());
      assert.equal(await peer.goaway(), H2_CODE[code]);
      await peer.closed;
      const answer = await bench.client.unary(METHODS.say, { text: id }, { deadline_ms: 20_000 });
      assert.equal(answer.text, id);
    });
  }
  assert.equal(bench.logger.lines.filter(({ level }) => level === 'error').length, 0);
});

test('h2: the same bytes one at a time end the same way', async () => {
  await using bench = await Bench.start('h2');
  using peer = new RawPeer(bench.path);
  peer.socket.setNoDelay();
  const bytes = Buffer.concat([
    HELLO,
    headersFrame(1, SAY),
    dataFrame(1, grpcMessage(Buffer.of(0x0a, 1, 0x61)), END),
  ]);
  for (const byte of bytes) {
    peer.send(Buffer.of(byte));
    await new Promise((resolve) => setImmediate(resolve));
  }
  assert.match((await peer.trailers(1)) ?? '', /grpc-status\x010/);
});
