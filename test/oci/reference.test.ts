import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { DaemonError, hasCode } from '../../src/base/errors.ts';
import {
  hostnameOf,
  isRegistryHost,
  parseReference,
  renderReference,
} from '../../src/oci/reference.ts';

const HEX = `sha256:${'ab'.repeat(32)}`;

const names = [
  ['debian', 'docker.io', 'library/debian', 'latest', undefined],
  ['grafana/loki:3.1', 'docker.io', 'grafana/loki', '3.1', undefined],
  ['docker.io/debian:12', 'docker.io', 'library/debian', '12', undefined],
  ['index.docker.io/a/b', 'docker.io', 'a/b', 'latest', undefined],
  ['localhost/app', 'localhost', 'app', 'latest', undefined],
  ['localhost:5000/app:v1', 'localhost:5000', 'app', 'v1', undefined],
  ['10.0.0.1:5000/a/b/c', '10.0.0.1:5000', 'a/b/c', 'latest', undefined],
  ['[::1]:5000/app', '[::1]:5000', 'app', 'latest', undefined],
  [`reg.example/app@${HEX}`, 'reg.example', 'app', undefined, HEX],
  [`reg.example/app:v1@${HEX}`, 'reg.example', 'app', 'v1', HEX],
] as const;

for (const [text, registry, repository, tag, digest] of names) {
  test(`"${text.slice(0, 40)}" names ${repository} at ${registry}`, () => {
    assert.deepEqual(parseReference(text), { registry, repository, tag, digest });
  });
}

const malformed = [
  '',
  'reg.example/',
  'reg.example/App',
  'reg.example/a//b',
  'reg.example/../b',
  'reg.example:99999/a',
  'a@sha256:12',
  'a:',
  'a:b:c/d',
  'user@reg.example/a',
  'http://reg.example/a',
  '[::g]:5000/a',
  'x'.repeat(2000),
];

for (const text of malformed) {
  test(`"${text.slice(0, 40)}" is no name of an image`, () => {
    assert.throws(
      () => parseReference(text),
      (e) => hasCode(e, 'invalid_argument'),
    );
  });
}

test('what is read and written out reads the same again, and no text fails in another way', () => {
  const part = fc.stringMatching(/^[a-z0-9._:/@[\]A-Z-]{0,40}$/);
  fc.assert(
    fc.property(fc.oneof(part, fc.string()), (text) => {
      try {
        const read = parseReference(text);
        assert.deepEqual(parseReference(renderReference(read)), read);
        assert.ok(isRegistryHost(read.registry));
        assert.ok(!/[/?#@\s]/.test(read.registry), read.registry);
        assert.ok(!`/${read.repository}/`.includes('/../'));
      } catch (error) {
        if (!(error instanceof DaemonError)) throw error;
      }
    }),
  );
});

test('the host of a registry has neither port nor brackets', () => {
  assert.equal(hostnameOf('reg.example:5000'), 'reg.example');
  assert.equal(hostnameOf('[::1]:5000'), '::1');
  assert.equal(hostnameOf('reg.example'), 'reg.example');
});
