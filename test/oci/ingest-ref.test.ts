import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { isDigest } from '../../src/oci/digest.ts';
import { MAX_REF_LENGTH, parsePullRef } from '../../src/oci/ingest-ref.ts';

const D = `sha256:${'ab'.repeat(32)}`;

const eligible = [
  { id: 'a layer', ref: `k8s.io/1/layer-${D}`, kind: 'layer', namespace: 'k8s.io' },
  { id: 'a manifest', ref: `default/12/manifest-${D}`, kind: 'manifest', namespace: 'default' },
  {
    id: 'an index with its ref name',
    ref: `default/1/index-docker.io/library/a:1@${D}`,
    kind: 'index',
    namespace: 'default',
  },
  {
    id: 'an attestation',
    ref: `default/1/attestation-${D}`,
    kind: 'attestation',
    namespace: 'default',
  },
  { id: 'a custom kind', ref: `default/1/cosign-${D}`, kind: 'other', namespace: 'default' },
];
for (const { id, ref, kind, namespace } of eligible) {
  test(`${id} ref of a puller names its digest`, () => {
    assert.deepEqual(parsePullRef(ref), { digest: D, kind, namespace });
  });
}

const plain = [
  'c1',
  'ref-0-0',
  `layer-${D}`,
  `default/1/${D}`,
  `default/1/convert-uncompress-from-${D}`,
  `default/1/converter-write-json-${D}`,
  `default/1/tar-blobs/sha256/${'ab'.repeat(32)}`,
  `default/1/layer-${D}/x`,
  `default/1/layer-md5:${'ab'.repeat(16)}`,
  `default/1/layer-sha256:${'AB'.repeat(32)}`,
  `default/1/a/b/c/d`,
  '///',
  `default/1/layer-${'x/'.repeat(MAX_REF_LENGTH)}@${D}`,
];
for (const ref of plain) {
  test(`the ref ${ref.slice(0, 60)} is a plain write`, () =>
    assert.equal(parsePullRef(ref), undefined));
}

test('whatever the ref, an answer carries a true digest and nothing is thrown', () => {
  fc.assert(
    fc.property(
      fc.oneof(fc.string(), fc.stringMatching(/^[a-z]+\/1\/[a-z@/-]*sha256:[0-9a-f]{0,70}$/)),
      (ref) => {
        const parsed = parsePullRef(ref);
        if (parsed !== undefined) assert.ok(isDigest(parsed.digest) && ref.endsWith(parsed.digest));
      },
    ),
  );
});
