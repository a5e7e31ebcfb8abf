import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { hasCode } from '../../src/base/errors.ts';
import { digestOf } from '../../src/oci/digest.ts';
import { parseManifest } from '../../src/oci/manifest.ts';

const encode = (value: unknown): Uint8Array => new TextEncoder().encode(JSON.stringify(value));
const blob = (seed: number, more: object = {}): object => ({
  mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip',
  digest: digestOf(new Uint8Array([seed])),
  size: seed,
  ...more,
});
const image = (layers: readonly object[], config: unknown = blob(1)): Uint8Array =>
  encode({ schemaVersion: 2, config, layers });
const refused = (e: unknown): boolean => hasCode(e, 'invalid_argument');

describe('a manifest', () => {
  it('names its config and layers once each, in order', () => {
    const manifest = parseManifest(image([blob(2), blob(3), blob(2)]));
    assert.ok(manifest.kind === 'image');
    assert.deepEqual(
      manifest.blobs.map((b) => [b.role, b.size_bytes]),
      [
        ['config', 1],
        ['layer', 2],
        ['layer', 3],
      ],
    );
  });

  it('leaves out foreign, non-distributable, empty and non-sha256 blobs', () => {
    const layers = [
      blob(2, { mediaType: 'application/vnd.docker.image.rootfs.foreign.diff.tar.gzip' }),
      blob(3, { mediaType: 'application/vnd.oci.image.layer.nondistributable.v1.tar' }),
      blob(4, { urls: ['https://example.test/x'] }),
      blob(5, { size: 0 }),
      blob(6, { digest: `sha512:${'0'.repeat(128)}` }),
    ];
    const manifest = parseManifest(image(layers));
    assert.equal(manifest.kind === 'image' && manifest.blobs.length, 1);
  });

  it('of many platforms is an index', () => {
    assert.deepEqual(parseManifest(encode({ schemaVersion: 2, manifests: [] })), { kind: 'index' });
  });

  const cases = [
    { id: 'no JSON', bytes: new Uint8Array([123]) },
    { id: 'no UTF-8', bytes: new Uint8Array([34, 255, 34]) },
    { id: 'schema 1', bytes: encode({ schemaVersion: 1, fsLayers: [] }) },
    { id: 'no layers', bytes: encode({ schemaVersion: 2, config: blob(1) }) },
    { id: 'no config', bytes: encode({ schemaVersion: 2, layers: [] }) },
    { id: 'a negative size', bytes: image([blob(2, { size: -1 })]) },
    { id: 'a huge size', bytes: image([blob(2, { size: 2 ** 41 })]) },
    { id: 'a size that is no integer', bytes: image([blob(2, { size: 1.5 })]) },
    { id: 'a bad digest', bytes: image([blob(2, { digest: 'sha256:../../x' })]) },
    { id: 'too many layers', bytes: image(Array.from({ length: 513 }, () => blob(2))) },
    { id: 'too many bytes', bytes: new Uint8Array(4 * 1024 * 1024 + 1) },
  ];
  for (const { id, bytes } of cases) {
    it(`is refused with ${id}`, () => assert.throws(() => parseManifest(bytes), refused));
  }

  it('is read or refused, whatever the bytes are', () => {
    const any = fc.oneof(
      fc.uint8Array(),
      fc.json().map((j) => new TextEncoder().encode(j)),
    );
    fc.assert(
      fc.property(any, (bytes) => {
        try {
          parseManifest(bytes);
        } catch (error) {
          assert.equal(refused(error), true);
        }
      }),
    );
  });
});
