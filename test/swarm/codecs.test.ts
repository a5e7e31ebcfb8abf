import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { hasCode } from '../../src/base/errors.ts';
import { digestOf } from '../../src/oci/digest.ts';
import { MAX_BLOB_BYTES, PIECE_BYTES, pieceCount } from '../../src/piece/layout.ts';
import {
  ADMISSION_HEADER_BYTES,
  decodeAdmissionHeader,
} from '../../src/swarm/admission/admission-protocol.ts';
import { FrameDecoder } from '../../src/swarm/transport/frame-decoder.ts';
import {
  decodeHello,
  decodeInventoryHeader,
  decodePeers,
  decodeRefusal,
  decodeState,
  encodeInventory,
  INVENTORY_HEADER_BYTES,
} from '../../src/swarm/inventory/inventory-protocol.ts';
import { MAX_CONTROL_BODY_BYTES, MAX_LIST_BODY_BYTES } from '../../src/swarm/ground/limits.ts';
import {
  decodeList,
  decodeRequest,
  decodeResponse,
  encodeList,
  encodeRequest,
  encodeResponse,
  type PieceRequest,
  type PieceResponse,
  REQUEST_BYTES,
  RESPONSE_HEADER_BYTES,
} from '../../src/swarm/exchange/piece-protocol.ts';
import {
  decodePrefixes,
  encodePrefixes,
  type Prefix,
  PrefixSet,
} from '../../src/swarm/inventory/prefix-set.ts';

/** Plain objects, as the decoders make them. */
const plain = { noNullPrototype: true } as const;
const u32 = fc.integer({ min: 0, max: 0xffffffff });
const digest = fc.uint8Array({ maxLength: 8 }).map(digestOf);
const patience_ms = fc.integer({ min: 0, max: 255 }).map((steps) => steps * 100);
const request: fc.Arbitrary<PieceRequest> = fc.oneof(
  fc.record(
    {
      kind: fc.constant('piece' as const),
      id: u32,
      digest,
      index: u32,
      length: fc.integer({ min: 1, max: PIECE_BYTES }),
      patience_ms,
    },
    plain,
  ),
  fc.record(
    { kind: fc.constant('list' as const), id: u32, digest, max_pieces: u32, patience_ms },
    plain,
  ),
  fc.record({ kind: fc.constant('cancel' as const), id: u32 }, plain),
);
const response: fc.Arbitrary<PieceResponse> = fc
  .record(
    {
      kind: fc.constantFrom('piece' as const, 'list' as const),
      status: fc.constantFrom(
        'ok' as const,
        'not_found' as const,
        'busy' as const,
        'error' as const,
        'unsupported' as const,
      ),
      id: u32,
      length: fc.integer({ min: 0, max: PIECE_BYTES }),
      retry_after_ms: fc.integer({ min: 0, max: 60_000 }),
    },
    plain,
  )
  .map((r) => ({
    ...r,
    length: r.status === 'ok' ? r.length : 0,
    retry_after_ms: r.status === 'busy' ? r.retry_after_ms : 0,
  }));
const prefix: fc.Arbitrary<Prefix> = fc.record({ high: u32, low: u32 }, plain);

function throwsOnlyProtocolErrors(act: () => void): void {
  try {
    act();
  } catch (error) {
    assert.ok(hasCode(error, 'protocol_error'), String(error));
  }
}

test('requests and answers survive the wire', () => {
  fc.assert(fc.property(request, (r) => assert.deepEqual(decodeRequest(encodeRequest(r)), r)));
  fc.assert(fc.property(response, (r) => assert.deepEqual(decodeResponse(encodeResponse(r)), r)));
});

test('a piece list survives the wire, and one whose count does not fit its size is refused', () => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 20 * PIECE_BYTES }), (size_bytes) => {
      const list = {
        digest: digestOf(Buffer.of(1)),
        size_bytes,
        digests: new Uint8Array(32 * pieceCount(size_bytes)).fill(7),
      };
      assert.deepEqual(decodeList(list.digest, encodeList(list)), list);
      const longer = Buffer.concat([encodeList(list), new Uint8Array(32)]);
      assert.throws(() => decodeList(list.digest, longer), { code: 'protocol_error' });
    }),
  );
  assert.equal(MAX_LIST_BODY_BYTES, 8 + 32 * pieceCount(MAX_BLOB_BYTES));
});

test('arbitrary bytes end in a protocol error or a value within the limits, never in anything else', () => {
  const bytes = (length: number) => fc.uint8Array({ minLength: length, maxLength: length });
  // Half of them carry the right version, so that the fields behind it are reached.
  const versioned = (length: number) =>
    fc.tuple(bytes(length), fc.boolean()).map(([b, right]) => {
      if (right) b[0] = 1;
      return b;
    });
  fc.assert(
    fc.property(versioned(REQUEST_BYTES), (b) =>
      throwsOnlyProtocolErrors(() => {
        const r = decodeRequest(b);
        if (r.kind === 'piece') assert.ok(r.length > 0 && r.length <= PIECE_BYTES);
      }),
    ),
  );
  fc.assert(
    fc.property(versioned(RESPONSE_HEADER_BYTES), (b) =>
      throwsOnlyProtocolErrors(() => assert.ok(decodeResponse(b).length <= MAX_LIST_BODY_BYTES)),
    ),
  );
  fc.assert(
    fc.property(versioned(INVENTORY_HEADER_BYTES), (b) =>
      throwsOnlyProtocolErrors(() =>
        assert.ok(decodeInventoryHeader(b).length <= MAX_CONTROL_BODY_BYTES),
      ),
    ),
  );
  fc.assert(
    fc.property(versioned(ADMISSION_HEADER_BYTES), (b) =>
      throwsOnlyProtocolErrors(() => assert.ok(decodeAdmissionHeader(b).length <= 64)),
    ),
  );
  const bodies = fc.oneof(
    fc.uint8Array({ maxLength: 200 }),
    fc.json().map((text) => Buffer.from(text)),
  );
  fc.assert(
    fc.property(bodies, (b) => {
      for (const decode of [decodeHello, decodeState, decodePeers, decodeRefusal]) {
        throwsOnlyProtocolErrors(() => decode(b));
      }
      throwsOnlyProtocolErrors(() => decodePrefixes(b, () => undefined));
    }),
  );
});

test('an unknown frame is skipped when it is marked optional, and ends the connection without blame otherwise', () => {
  assert.equal(decodeInventoryHeader(Uint8Array.of(1, 99, 1, 0, 0, 0, 0, 5)).type, undefined);
  assert.throws(
    () => decodeInventoryHeader(Uint8Array.of(1, 99, 0, 0, 0, 0, 0, 5)),
    (e) => hasCode(e, 'protocol_error') && e.facts['reason'] === 'protocol_version',
  );
});

test('a hello says what its sender can do; the first version says nothing, and a list that makes no sense counts as nothing', () => {
  const hello = { protocol: 1, software: '', zone: '', host: '', listen: [] };
  const decode = (more: object) =>
    decodeHello(encodeInventory('hello', { ...hello, ...more }).subarray(INVENTORY_HEADER_BYTES))
      .features;
  assert.deepEqual(decode({}), []);
  assert.deepEqual(decode({ features: ['quick', 'of-a-later-version'] }), [
    'quick',
    'of-a-later-version',
  ]);
  for (const features of [7, [7], 'quick', ['x'.repeat(33)], Array<string>(65).fill('x')]) {
    assert.deepEqual(decode({ features }), []);
  }
});

test('the first version reads past what is new: patience lies in a spare byte, the time to come back in spare bits', () => {
  const piece = {
    kind: 'piece',
    id: 5,
    digest: digestOf(Buffer.of(1)),
    index: 6,
    length: 7,
  } as const;
  const old = encodeRequest(piece);
  const told = encodeRequest({ ...piece, patience_ms: 1000 });
  assert.deepEqual([old[3], told[3]], [0, 10]);
  told[3] = 0;
  assert.deepEqual(told, old);
  assert.equal(encodeRequest({ ...piece, patience_ms: 1e9 })[3], 255);
  const busy = encodeResponse({ kind: 'piece', status: 'busy', id: 5, length: 0 });
  const answer = { kind: 'piece', status: 'busy', id: 5, length: 0, retry_after_ms: 258 } as const;
  assert.deepEqual(encodeResponse(answer).subarray(0, 12), busy.subarray(0, 12));
  assert.deepEqual([...encodeResponse(answer).subarray(12)], [0, 0, 1, 2]);
});

test('another version is refused by name in every protocol', () => {
  const cases = [
    () => decodeInventoryHeader(Uint8Array.of(2, 1, 0, 0, 0, 0, 0, 0)),
    () => decodeAdmissionHeader(Uint8Array.of(2, 0, 0, 32)),
    () => decodeRequest(new Uint8Array(REQUEST_BYTES).fill(2)),
    () => decodeResponse(new Uint8Array(RESPONSE_HEADER_BYTES).fill(2)),
    () =>
      decodeHello(
        Buffer.from(JSON.stringify({ protocol: 2, software: '', zone: '', host: '', listen: [] })),
      ),
  ];
  for (const act of cases) {
    assert.throws(
      act,
      (e) => hasCode(e, 'protocol_error') && e.facts['reason'] === 'protocol_version',
    );
  }
});

test('a hello with a name in place of an IP address, or with too many addresses, is refused', () => {
  const hello = { protocol: 1, software: '', zone: '', host: '' };
  const decode = (listen: string[]) =>
    decodeHello(encodeInventory('hello', { ...hello, listen }).subarray(INVENTORY_HEADER_BYTES));
  assert.equal(decode(['/ip4/10.0.0.1/tcp/1']).listen.length, 1);
  assert.throws(() => decode(['/dns4/example.org/tcp/1']), { code: 'protocol_error' });
  assert.throws(() => decode(Array<string>(17).fill('/ip4/10.0.0.1/tcp/1')), {
    code: 'protocol_error',
  });
});

test('frames come out whole however the bytes are cut', () => {
  fc.assert(
    fc.property(
      fc.array(fc.uint8Array({ maxLength: 40 }), { maxLength: 8 }),
      fc.array(fc.integer({ min: 1, max: 17 }), { minLength: 1 }),
      (bodies, cuts) => {
        const seen: Uint8Array[] = [];
        const decoder = new FrameDecoder(1, (header) => {
          const target = new Uint8Array(header[0]!);
          return { length: target.length, target, done: () => void seen.push(target) };
        });
        const wire = Buffer.concat(bodies.map((b) => Buffer.concat([Uint8Array.of(b.length), b])));
        for (let at = 0, i = 0; at < wire.length; i++) {
          const cut = cuts[i % cuts.length]!;
          decoder.push(wire.subarray(at, at + cut));
          at += cut;
        }
        assert.deepEqual(seen, bodies);
        assert.ok(decoder.idle);
      },
    ),
  );
});

test('progress is told once for all that came in at once, and of every last byte', () => {
  const told: number[] = [];
  const decoder = new FrameDecoder(1, (header) => ({
    length: header[0]!,
    onProgress: (bytes) => told.push(bytes),
    done: () => told.push(-1),
  }));
  decoder.push([Uint8Array.of(100), new Uint8Array(16), new Uint8Array(16), new Uint8Array(16)]);
  decoder.push(new Uint8Array(0));
  decoder.push([new Uint8Array(50), new Uint8Array(2), Uint8Array.of(3, 1)]);
  decoder.push(Uint8Array.of(1, 1));
  assert.deepEqual(told, [48, 100, -1, 1, 3, -1]);
});

test('a prefix set behaves like a set', () => {
  const small = fc.record({
    high: fc.integer({ min: 0, max: 3 }),
    low: fc.integer({ min: 0, max: 3 }),
  });
  const operations = fc.array(fc.tuple(fc.boolean(), fc.oneof(small, small, prefix)), {
    maxLength: 300,
  });
  fc.assert(
    fc.property(operations, (list) => {
      const real = new PrefixSet({ max: 1000 });
      const model = new Map<string, Prefix>();
      for (const [isAdd, p] of list) {
        const key = `${p.high}/${p.low}`;
        if (isAdd) {
          real.add(p);
          model.set(key, p);
        } else {
          real.delete(p);
          model.delete(key);
        }
        assert.equal(real.size, model.size);
      }
      for (const [, p] of list) assert.equal(real.has(p), model.has(`${p.high}/${p.low}`));
    }),
  );
});

test('prefixes survive the wire', () => {
  fc.assert(
    fc.property(fc.array(prefix), (list) => {
      const seen: Prefix[] = [];
      decodePrefixes(encodePrefixes(list), (p) => seen.push(p));
      assert.deepEqual(seen, list);
    }),
  );
});

test('an inventory beyond its limit is a protocol error', () => {
  const set = new PrefixSet({ max: 2 });
  set.add({ high: 0, low: 0 });
  set.add({ high: 1, low: 1 });
  set.add({ high: 1, low: 1 });
  assert.throws(() => set.add({ high: 2, low: 2 }), { code: 'protocol_error' });
});
