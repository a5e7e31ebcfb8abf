import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { hasCode } from '../../src/base/errors.ts';
import { guardedLookup, hearsayUrl } from '../../src/registry/wire/hearsay.ts';
import { never, registryBench } from './registry-bench.ts';
import { RegistryServer } from './registry-server.ts';

const registry = new URL('https://reg.example/v2/');

const refused = [
  ['http://storage.example/', 'plain after TLS'],
  ['ftp://storage.example/', 'another scheme'],
  ['https://user:pass@storage.example/', 'a user'],
  ['https://169.254.169.254/', 'link-local'],
  ['https://[fe80::1]/', 'link-local of IPv6'],
  ['https://[fd00:ec2::254]/', "a cloud's metadata"],
  ['https://100.100.100.200/', "a cloud's metadata"],
  ['https://127.0.0.1/', 'loopback'],
  ['https://[::1]/', 'loopback of IPv6'],
  ['https://localhost/', 'loopback by name'],
  ['https://0/', 'the unspecified address'],
] as const;

for (const [text, why] of refused) {
  test(`${text} is not asked because a registry says so: ${why}`, () => {
    assert.throws(
      () => hearsayUrl(text, registry),
      (e) => hasCode(e, 'protocol_error'),
    );
  });
}

for (const text of [
  'https://10.0.0.7/x',
  'https://storage.example/',
  '/blobs/uploads',
  '//cdn.example/x',
]) {
  test(`${text} is asked when a registry says so`, () => {
    assert.equal(hearsayUrl(text, registry).protocol, 'https:');
  });
}

test('a server on loopback may name loopback, and still no metadata service', () => {
  const local = new URL('http://127.0.0.1:5000/');
  assert.equal(hearsayUrl('http://localhost:6000/', local).port, '6000');
  assert.throws(() => hearsayUrl('http://169.254.169.254/', local));
});

test('no text leads out of HTTP or to an address that is not asked', () => {
  const digits = fc.nat({ max: 255 });
  const address = fc.tuple(digits, digits, digits, digits).map((parts) => parts.join('.'));
  const text = fc.oneof(
    fc.string(),
    fc.webUrl(),
    address.map((a) => `https://${a}/`),
  );
  fc.assert(
    fc.property(text, (t) => {
      try {
        const url = hearsayUrl(t, registry);
        assert.equal(url.protocol, 'https:');
        assert.doesNotMatch(url.hostname, /^(127|169\.254|0)(\.\d+)+$/);
      } catch (error) {
        assert.ok(hasCode(error, 'protocol_error'));
      }
    }),
  );
});

test('a name that leads to loopback alone is not resolved for who is not there itself', async () => {
  const resolve = (with_loopback: boolean) =>
    new Promise((done) =>
      guardedLookup(with_loopback)('localhost', { all: true }, (error, found) =>
        done(error === null ? found.length : error.code),
      ),
    );
  assert.equal(await resolve(false), 'ENOTFOUND');
  assert.ok(Number(await resolve(true)) > 0);
});

test('a redirect to a name is followed through the guarded look-up', async (t) => {
  const { server, client, origin } = await registryBench(t);
  const storage = await RegistryServer.start();
  t.after(() => storage[Symbol.asyncDispose]());
  storage.addManifest('v1', { a: 1 });
  const port = storage.address.split(':')[1]!;
  server.behaviour = ({ url }, response) => {
    response.writeHead(307, { location: `http://localhost:${port}${url}` }).end();
    return true;
  };
  const { served } = await client.manifest(origin, 'v1', { signal: never });
  assert.equal(served.served_by, `http://localhost:${port}`);
});
