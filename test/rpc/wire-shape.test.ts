import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import protobuf from 'protobufjs';
import { hasCode } from '../../src/base/errors.ts';
import { loadService } from '../../src/rpc/proto.ts';
import { isWholeMessage } from '../../src/rpc/wire-shape.ts';

const message = fc
  .array(
    fc.oneof(
      fc.record({ kind: fc.constant('varint' as const), n: fc.nat() }),
      fc.record({ kind: fc.constant('fixed' as const), n: fc.nat() }),
      fc.record({ kind: fc.constant('bytes' as const), bytes: fc.uint8Array({ maxLength: 300 }) }),
    ),
    { minLength: 1, maxLength: 8 },
  )
  .map((fields) => {
    const writer = protobuf.Writer.create();
    fields.forEach((field, i) => {
      const id = (i + 1) * 8;
      if (field.kind === 'varint') writer.uint32(id).uint64(field.n);
      else if (field.kind === 'fixed') writer.uint32(id + 5).fixed32(field.n);
      else writer.uint32(id + 2).bytes(field.bytes);
    });
    return writer.finish();
  });

test('whatever protobufjs writes is a whole message', () => {
  fc.assert(fc.property(message, (bytes) => assert.ok(isWholeMessage(bytes))));
});

test('a message cut inside its last field is not whole', () => {
  const writer = protobuf.Writer.create().uint32(10).string('default/1/layer');
  const bytes = writer.finish();
  for (let end = 1; end < bytes.length; end++) assert.ok(!isWholeMessage(bytes.subarray(0, end)));
});

test('arbitrary bytes are judged without a throw', () => {
  fc.assert(fc.property(fc.uint8Array(), (bytes) => void isWholeMessage(bytes)));
});

test('a string that claims more bytes than there are is a malformed request, not a shorter string', () => {
  const { decode } = loadService(
    'containerd/services/content/v1/content.proto',
    'containerd.services.content.v1.Content',
  ).method('Status');
  assert.throws(
    () => decode(Uint8Array.of(0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f)),
    (error) => hasCode(error, 'invalid_argument'),
  );
});
