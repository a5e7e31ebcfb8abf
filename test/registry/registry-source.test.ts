import assert from 'node:assert/strict';
import { test } from 'node:test';
import { hasCode } from '../../src/base/errors.ts';
import { digestOf } from '../../src/oci/digest.ts';
import { RegistrySource } from '../../src/registry/registry-source.ts';
import { pieceSourceSuite } from '../contract/piece-source-suite.ts';
import { never, registryBench } from './registry-bench.ts';
import type { Behaviour } from './registry-server.ts';

const BEHAVIOURS: Readonly<Record<'whole' | 'missing' | 'busy' | 'silent', Behaviour>> = {
  whole: () => false,
  missing: (_, response) => {
    response.writeHead(404).end();
    return true;
  },
  busy: (_, response) => {
    response.writeHead(429, { 'retry-after': '1' }).end();
    return true;
  },
  silent: () => true,
};

pieceSourceSuite(
  'the registry',
  async (state, bytes) => {
    const stack = new AsyncDisposableStack();
    const bench = await registryBench({ after: (end) => stack.defer(end as () => void) });
    bench.server.addBlob(bytes);
    bench.server.behaviour = BEHAVIOURS[state];
    const blob = { digest: digestOf(bytes), size_bytes: bytes.length };
    const source = new RegistrySource(bench.client, blob, [bench.origin]);
    return { source, [Symbol.asyncDispose]: () => stack.disposeAsync() };
  },
  { lists: false },
);

test('a blob is looked for in each repository it may be in, and the wrong ones are asked once', async (t) => {
  const bench = await registryBench(t);
  const bytes = new Uint8Array(5 * 1024 * 1024).fill(7);
  const digest = digestOf(bytes);
  bench.server.addBlob(bytes);
  bench.server.behaviour = ({ url }, response) => {
    if (url.includes('/right/')) return false;
    response.writeHead(url.includes('/private/') ? 403 : 404).end();
    return true;
  };
  const { registry } = bench.origin;
  const source = new RegistrySource(bench.client, { digest, size_bytes: bytes.length }, [
    { registry, repository: 'wrong/app' },
    { registry, repository: 'private/app' },
    { registry, repository: 'right/app' },
  ]);
  await source.fetch(0, 4 * 1024 * 1024, { signal: never });
  await source.fetch(1, 1024 * 1024, { signal: never });
  assert.deepEqual(
    bench.server.paths.map((path) => path.split('/')[2]),
    ['wrong', 'private', 'right', 'right'],
  );
});

test('a source that gave wrong bytes is not asked for that blob again, and for others it is', async (t) => {
  const bench = await registryBench(t);
  const [one, two] = [new Uint8Array(100).fill(1), new Uint8Array(100).fill(2)];
  for (const bytes of [one, two]) bench.server.addBlob(bytes);
  const source = (bytes: Uint8Array) =>
    new RegistrySource(bench.client, { digest: digestOf(bytes), size_bytes: 100 }, [bench.origin]);
  source(one).blame('busy');
  await source(one).fetch(0, 100, { signal: never });
  source(one).blame('wrong_piece');
  await assert.rejects(source(one).fetch(0, 100, { signal: never }), (e) =>
    hasCode(e, 'protocol_error'),
  );
  await source(two).fetch(0, 100, { signal: never });
  assert.equal(bench.server.asked.length, 2);
});

test('a piece that the blob does not have is refused without a request', async (t) => {
  const bench = await registryBench(t);
  const blob = { digest: digestOf(new Uint8Array(10)), size_bytes: 10 };
  const source = new RegistrySource(bench.client, blob, [bench.origin]);
  for (const [index, length] of [
    [0, 9],
    [1, 10],
    [-1, 0],
  ] as const) {
    await assert.rejects(source.fetch(index, length, { signal: never }), (e) =>
      hasCode(e, 'invalid_argument'),
    );
  }
  assert.equal(bench.server.asked.length, 0);
});
