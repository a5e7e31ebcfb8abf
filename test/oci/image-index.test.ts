import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { hasCode } from '../../src/base/errors.ts';
import {
  chooseEntry,
  ownPlatform,
  parseIndex,
  parsePlatform,
  renderPlatform,
} from '../../src/oci/image-index.ts';

const digest = (n: number): string => `sha256:${String(n).repeat(64)}`;
const entry = (n: number, architecture: string, variant?: string) => ({
  digest: digest(n),
  size: 100,
  platform: { os: 'linux', architecture, variant },
});
const bytes = (value: unknown): Uint8Array => Buffer.from(JSON.stringify(value));

test('an index gives the manifest of a platform, by variant only where one is asked for', () => {
  const manifests = [entry(1, 'amd64'), entry(2, 'arm', 'v6'), entry(3, 'arm', 'v7')];
  const entries = parseIndex(bytes({ schemaVersion: 2, manifests }));
  const chosen = (text: string) => chooseEntry(entries, parsePlatform(text))?.digest;
  assert.equal(chosen('linux/amd64'), digest(1));
  assert.equal(chosen('linux/arm'), digest(2));
  assert.equal(chosen('linux/arm/v7'), digest(3));
  assert.equal(chosen('linux/s390x'), undefined);
});

test('entries that name nothing to fetch are left out', () => {
  const manifests = [null, { digest: 'sha256:1', size: 1 }, { digest: digest(1), size: -1 }];
  assert.deepEqual(parseIndex(bytes({ manifests })), []);
});

test('what is no index is refused, and never in another way', () => {
  fc.assert(
    fc.property(fc.oneof(fc.string(), fc.json()), (text) => {
      try {
        parseIndex(Buffer.from(text));
      } catch (error) {
        assert.ok(hasCode(error, 'invalid_argument'));
      }
    }),
  );
});

test('a platform is written as it is read', () => {
  for (const text of ['linux/amd64', 'linux/arm64/v8']) {
    assert.equal(renderPlatform(parsePlatform(text)), text);
  }
  assert.match(renderPlatform(ownPlatform()), /^linux\/(amd64|arm64|[a-z0-9]+)$/);
  for (const text of ['linux', 'Linux/amd64', 'linux/amd64/v8/x', '']) {
    assert.throws(
      () => parsePlatform(text),
      (e) => hasCode(e, 'invalid_argument'),
    );
  }
});
