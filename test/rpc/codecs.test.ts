import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  ConnectionError,
  encodeFrame,
  FrameReader,
  readSettings,
  settingsPayload,
  unpad,
} from '../../src/rpc/h2/frames.ts';
import {
  encodeLiteral,
  type HeaderField,
  HeaderListTooLarge,
  HpackDecoder,
} from '../../src/rpc/h2/hpack.ts';
import { HpackError } from '../../src/rpc/h2/hpack-error.ts';
import { decodeHuffman, HUFFMAN_CODES } from '../../src/rpc/h2/huffman.ts';
import { parseGrpcTimeout } from '../../src/rpc/h2/request-head.ts';
import { percentEncode } from '../../src/rpc/h2/stream.ts';

const octets = fc.uint8Array({ maxLength: 300 });
const latin1 = octets.map((bytes) => Buffer.from(bytes).toString('latin1'));

function encodeHuffman(text: string): Buffer {
  let bits = '';
  for (const octet of Buffer.from(text, 'latin1')) {
    const { code, length } = HUFFMAN_CODES[octet]!;
    bits += code.toString(2).padStart(length, '0');
  }
  bits += '1'.repeat((8 - (bits.length % 8)) % 8);
  return Buffer.from((bits.match(/.{8}/g) ?? []).map((byte) => Number.parseInt(byte, 2)));
}

function decoder(maxList_bytes = 65_536): HpackDecoder {
  return new HpackDecoder({ maxList_bytes });
}

test('Huffman strings of the RFC decode', () => {
  for (const [hex, text] of [
    ['f1e3c2e5f23a6ba0ab90f4ff', 'www.example.com'],
    ['a8eb10649cbf', 'no-cache'],
    ['9d29ad171863c78f0b97c8e9ae82ae43d3', 'https://www.example.com'],
  ] as const) {
    const bytes = Buffer.from(hex, 'hex');
    assert.equal(decodeHuffman(bytes, 0, bytes.length), text);
  }
});

test('any string survives Huffman coding, and any bytes decode or are refused', () => {
  fc.assert(
    fc.property(latin1, (text) => {
      const bytes = encodeHuffman(text);
      assert.equal(decodeHuffman(bytes, 0, bytes.length), text);
    }),
  );
  fc.assert(
    fc.property(octets, (bytes) => {
      try {
        const text = decodeHuffman(bytes, 0, bytes.length);
        assert.ok(text.length <= (bytes.length * 8) / 5);
      } catch (error) {
        assert.ok(error instanceof HpackError);
      }
    }),
  );
});

test('the request examples of RFC 7541 C.4 decode, with their dynamic table', () => {
  const hpack = decoder();
  const blocks = [
    '828684418cf1e3c2e5f23a6ba0ab90f4ff',
    '828684be5886a8eb10649cbf',
    '828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf',
  ].map((hex) => hpack.decode(Buffer.from(hex, 'hex')));
  assert.deepEqual(blocks[1], [
    [':method', 'GET'],
    [':scheme', 'http'],
    [':path', '/'],
    [':authority', 'www.example.com'],
    ['cache-control', 'no-cache'],
  ]);
  assert.deepEqual(blocks[2]?.at(-1), ['custom-key', 'custom-value']);
});

test('literal header lists decode to what they were, whatever the decoder has seen', () => {
  const field = fc.tuple(fc.stringMatching(/^[a-z-]{1,200}$/), latin1);
  fc.assert(
    fc.property(fc.array(field, { maxLength: 20 }), (fields) => {
      assert.deepEqual(decoder(1 << 20).decode(encodeLiteral(fields)), fields);
    }),
  );
});

test('any header block decodes or is refused, and the list never passes its limit', () => {
  fc.assert(
    fc.property(fc.array(octets, { maxLength: 5 }), (blocks) => {
      const hpack = decoder(500);
      for (const block of blocks) {
        try {
          const list: readonly HeaderField[] = hpack.decode(block);
          assert.ok(list.reduce((sum, [n, v]) => sum + n.length + v.length + 32, 0) <= 500);
        } catch (error) {
          assert.ok(error instanceof HpackError || error instanceof HeaderListTooLarge);
          return;
        }
      }
    }),
    { numRuns: 1000 },
  );
});

test('the dynamic table evicts its oldest entries and keeps to its size', () => {
  const hpack = decoder();
  const entry = (value: string): Buffer =>
    Buffer.concat([Buffer.of(0x40, 1, 0x6b, value.length), Buffer.from(value)]);
  hpack.decode(Buffer.of(0x3f, 0x29)); // 72 bytes: two entries of 34 to 36
  hpack.decode(Buffer.concat([entry('one'), entry('two')]));
  assert.deepEqual(hpack.decode(Buffer.of(0xbe, 0xbf)), [
    ['k', 'two'],
    ['k', 'one'],
  ]);
  hpack.decode(entry('three'));
  assert.deepEqual(hpack.decode(Buffer.of(0xbe)), [['k', 'three']]);
  assert.throws(() => hpack.decode(Buffer.of(0xc0)), HpackError);
  hpack.tableLimit = 0;
  assert.throws(() => hpack.decode(Buffer.of(0xbe)), HpackError);
});

test('frames come out as they went in, however the bytes are cut', () => {
  const frame = fc.record({
    type: fc.nat(255),
    flags: fc.nat(255),
    id: fc.nat(0x7fff_ffff),
    payload: octets,
  });
  const cuts = fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1, maxLength: 50 });
  fc.assert(
    fc.property(fc.array(frame, { maxLength: 10 }), cuts, (frames, sizes) => {
      const bytes = Buffer.concat(frames.map((f) => encodeFrame(f.type, f.flags, f.id, f.payload)));
      const seen: typeof frames = [];
      const reader = new FrameReader({ maxPayload_bytes: 16_384 });
      for (let pos = 0, turn = 0; pos < bytes.length; turn++) {
        const size = sizes[turn % sizes.length]!;
        reader.push(Buffer.from(bytes.subarray(pos, pos + size)), {
          frame: (type, flags, id, source, start, end) => {
            seen.push({ type, flags, id, payload: new Uint8Array(source.subarray(start, end)) });
            return true;
          },
        });
        pos += size;
      }
      assert.deepEqual(
        seen,
        frames.map((f) => ({ ...f, payload: new Uint8Array(f.payload) })),
      );
    }),
  );
});

test('any bytes are frames or a ConnectionError, and a stopped reader goes no further', () => {
  fc.assert(
    fc.property(octets, (bytes) => {
      let count = 0;
      const reader = new FrameReader({ maxPayload_bytes: 16_384 });
      try {
        reader.push(Buffer.from(bytes), { frame: () => ++count < 2 });
      } catch (error) {
        assert.ok(error instanceof ConnectionError);
      }
      assert.ok(count <= 2);
    }),
  );
});

test('padding and SETTINGS payloads are cut or refused', () => {
  fc.assert(
    fc.property(octets, fc.nat(255), (bytes, flags) => {
      try {
        const [start, end] = unpad(flags, bytes, 0, bytes.length);
        assert.ok(start <= end && end <= bytes.length);
        readSettings(bytes, start, end);
      } catch (error) {
        assert.ok(error instanceof ConnectionError);
      }
    }),
  );
  const payload = settingsPayload([
    [4, 100],
    [5, 20_000],
    [99, 7],
  ]);
  assert.deepEqual(readSettings(payload, 0, payload.length), {
    initialWindow: 100,
    maxFrame: 20_000,
  });
});

test('grpc-timeout has a unit and at most eight digits', () => {
  for (const [text, ms] of [
    ['1S', 1000],
    ['250m', 250],
    ['2H', 7_200_000],
    ['1000u', 1],
    ['5', undefined],
    ['123456789S', undefined],
    ['-1S', undefined],
  ] as const) {
    assert.equal(parseGrpcTimeout(text), ms, text);
  }
});

test('status texts are printable ASCII and decode to what they were', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary', maxLength: 500 }), (text) => {
      const encoded = percentEncode(text);
      assert.match(encoded, /^[\x20-\x7e]*$/);
      assert.equal(decodeURIComponent(encoded), text.toWellFormed());
    }),
  );
});
