import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import fc from 'fast-check';
import { hasCode } from '../../src/base/errors.ts';
import {
  algorithmOf,
  createHasher,
  digestOf,
  EMPTY_SHA256,
  hexOf,
  isDigest,
  parseDigest,
  runningDigest,
} from '../../src/oci/digest.ts';

test('a digest of each registered algorithm is accepted and taken apart', () => {
  for (const algorithm of ['sha256', 'sha384', 'sha512'] as const) {
    const hex = createHash(algorithm).update('x').digest('hex');
    const digest = parseDigest(`${algorithm}:${hex}`);
    assert.equal(algorithmOf(digest), algorithm);
    assert.equal(hexOf(digest), hex);
  }
});

test('malformed digests are refused with invalid_argument', () => {
  const hex = 'a'.repeat(64);
  const bad = [
    '',
    ':',
    hex,
    `md5:${hex}`,
    `sha256:${hex}0`,
    `sha256:${hex.slice(1)}`,
    `SHA256:${hex}`,
  ];
  bad.push(
    `sha256:${hex.toUpperCase()}`,
    `sha256:../${hex.slice(3)}`,
    `__proto__:${hex}`,
    `constructor:${hex}`,
  );
  for (const text of bad) {
    assert.throws(
      () => parseDigest(text),
      (e) => hasCode(e, 'invalid_argument'),
      text,
    );
  }
});

test('no text but a digest is a digest, and what is accepted can never leave a directory', () => {
  fc.assert(
    fc.property(fc.string(), (text) => {
      if (isDigest(text)) assert.match(text, /^sha(256|384|512):[0-9a-f]+$/);
    }),
  );
});

test('a running digest shows the bytes so far and does not end the hash', () => {
  const hash = createHasher('sha256');
  assert.equal(runningDigest('sha256', hash), EMPTY_SHA256);
  hash.update('a');
  assert.equal(runningDigest('sha256', hash), digestOf(Buffer.from('a')));
  hash.update('b');
  assert.equal(runningDigest('sha256', hash), digestOf(Buffer.from('ab')));
});
