import assert from 'node:assert/strict';
import { test } from 'node:test';
import { hasCode } from '../../src/base/errors.ts';
import type { Digest } from '../../src/oci/digest.ts';
import { FakeClock } from '../fakes/fake-clock.ts';
import { never, registryBench } from './registry-bench.ts';
import { blob, MIB, ofBlobs, readPart } from './blob-part.ts';
import { partHeaders } from './registry-server.ts';

test('a range is one request on a connection that is kept', async (t) => {
  const bench = await registryBench(t);
  for (let i = 0; i < 5; i++) {
    const { is_partial, served } = await readPart(bench, i * 1000, MIB);
    assert.equal(is_partial, true);
    assert.equal(served.credential, 'anonymous');
  }
  assert.equal(bench.server.asked.length, 5);
  assert.equal(bench.server.connections, 1);
  assert.equal(bench.server.asked[1]?.headers.range, `bytes=1000-${1000 + MIB - 1}`);
});

test('twenty ranges at once take four connections', async (t) => {
  const bench = await registryBench(t);
  await Promise.all(Array.from({ length: 20 }, (_, i) => readPart(bench, i * 100, 50_000)));
  assert.equal(bench.server.connections, 4);
});

test('a server that ignores Range gives what is needed, and is remembered', async (t) => {
  const bench = await registryBench(t);
  bench.server.behaviour = ofBlobs((asked, response) => {
    bench.server.blob(asked.url.split('/').at(-1)!, undefined, response);
    return true;
  });
  const { is_partial } = await readPart(bench, 2 * MIB, 1000);
  assert.equal(is_partial, false);
  // Further in than the skip allows: nobody is asked any more.
  const before = bench.server.asked.length;
  const wish = { digest: bench.server.addBlob(blob) as Digest, size_bytes: 2 ** 30 };
  const far = { ...wish, offset: 2 ** 29, into: new Uint8Array(10) };
  await assert.rejects(bench.client.range(bench.origin, far, { signal: never }), (e) =>
    hasCode(e, 'unimplemented'),
  );
  assert.equal(bench.server.asked.length, before);
});

test('a server that ignores Range is left at once when the range lies far in', async (t) => {
  const bench = await registryBench(t);
  const size = 64 * MIB;
  let sent = 0;
  bench.server.behaviour = ofBlobs((_, response) => {
    response.writeHead(200, { 'content-length': size });
    const chunk = Buffer.alloc(MIB);
    const more = (): void => {
      while (sent < size && !response.destroyed) {
        sent += chunk.length;
        if (!response.write(chunk)) break;
      }
    };
    response.on('drain', more);
    more();
    return true;
  });
  const digest = bench.server.addBlob(blob) as Digest;
  const wish = { digest, size_bytes: size, offset: 32 * MIB, into: new Uint8Array(10) };
  await assert.rejects(bench.client.range(bench.origin, wish, { signal: never }), (e) =>
    hasCode(e, 'unimplemented'),
  );
  assert.ok(sent < 16 * MIB, String(sent));
});

test('an answer that is shorter than asked for goes on where it ended', async (t) => {
  const bench = await registryBench(t);
  bench.server.behaviour = ofBlobs(({ headers }, response) => {
    const first = Number(/bytes=(\d+)/.exec(headers.range ?? '')?.[1]);
    const last = Math.min(first + 299_999, 2 * MIB - 1);
    response.writeHead(206, partHeaders(first, last, blob.length));
    response.end(blob.subarray(first, last + 1));
    return true;
  });
  await readPart(bench);
  assert.equal(bench.server.asked.length, 4);
});

test('a body that is cut goes on where it ended, on a new connection', async (t) => {
  const bench = await registryBench(t);
  let cuts = 0;
  bench.server.behaviour = ofBlobs(({ headers }, response) => {
    if (cuts++ >= 2) return false;
    const first = Number(/bytes=(\d+)/.exec(headers.range ?? '')?.[1]);
    response.writeHead(206, partHeaders(first, 2 * MIB - 1, blob.length));
    response.write(blob.subarray(first, first + 100_000), () => response.destroy());
    return true;
  });
  await readPart(bench);
  assert.deepEqual(
    bench.server.asked.map(({ headers }) => headers.range),
    ['bytes=1048576-2097151', 'bytes=1148576-2097151', 'bytes=1248576-2097151'],
  );
});

test('a body that is cut again and again without bringing anything is given up, and one byte at a time too', async (t) => {
  for (const bytes of [0, 1]) {
    const bench = await registryBench(t);
    bench.server.behaviour = ofBlobs(({ headers }, response) => {
      const first = Number(/bytes=(\d+)/.exec(headers.range ?? '')?.[1]);
      response.writeHead(206, partHeaders(first, 2 * MIB - 1, blob.length));
      response.flushHeaders();
      response.write(blob.subarray(first, first + bytes), () => response.destroy());
      return true;
    });
    await assert.rejects(readPart(bench), (e) => hasCode(e, 'unavailable'));
    assert.ok(bench.server.asked.length <= 8, String(bench.server.asked.length));
  }
});

test('a server that says when it may be asked again is left alone until then', async (t) => {
  const clock = new FakeClock();
  const bench = await registryBench(t, { clock });
  bench.server.behaviour = ofBlobs((_, response) => {
    response.writeHead(429, { 'retry-after': '30' }).end();
    return true;
  });
  const busy = (e: unknown): boolean =>
    hasCode(e, 'unavailable') && e.facts['retry_after_ms'] === 30_000;
  await assert.rejects(readPart(bench), busy);
  bench.server.behaviour = () => false;
  await clock.advance(29_000);
  await assert.rejects(readPart(bench), busy);
  await clock.advance(1_001);
  await readPart(bench);
});

test('a server that sends no headers, or stops in mid body, is given up at our deadline', async (t) => {
  for (const with_headers of [false, true]) {
    const clock = new FakeClock();
    const bench = await registryBench(t, { clock });
    const arrived = Promise.withResolvers<unknown>();
    bench.server.behaviour = ofBlobs((_, response) => {
      if (with_headers) {
        response.writeHead(206, partHeaders(MIB, 2 * MIB - 1, blob.length));
        response.write(blob.subarray(MIB, MIB + 1000), arrived.resolve);
      } else arrived.resolve(undefined);
      return true;
    });
    let progress: (() => void) | undefined;
    const moved = new Promise<void>((resolve) => (progress = resolve));
    const digest = bench.server.addBlob(blob) as Digest;
    const into = new Uint8Array(MIB);
    const onProgress = (): void => progress?.();
    const wish = { digest, size_bytes: blob.length, offset: MIB, into, onProgress };
    const reading = bench.client.range(bench.origin, wish, { signal: never });
    const failed = assert.rejects(
      reading,
      (e) => hasCode(e, 'deadline_exceeded') && e.facts['limit_ms'] === 10_000,
    );
    await arrived.promise;
    if (with_headers) await moved;
    await clock.advance(10_001);
    await failed;
  }
});

test("the caller's own end comes through as it is, before and during a request", async (t) => {
  const bench = await registryBench(t);
  const arrived = Promise.withResolvers<boolean>();
  bench.server.behaviour = ofBlobs(() => {
    arrived.resolve(true);
    return true;
  });
  const end = new AbortController();
  const reason = new Error('enough');
  const reading = assert.rejects(readPart(bench, 0, MIB, end.signal), reason);
  await arrived.promise;
  end.abort(reason);
  await reading;
  await assert.rejects(readPart(bench, 0, MIB, end.signal), reason);
});

test('endpoints are asked in order, a mirror says for whom, and a failed one is told', async (t) => {
  const bench = await registryBench(t);
  const mirror = await registryBench(t);
  mirror.server.behaviour = (_, response) => {
    response.writeHead(404).end();
    return true;
  };
  const text = `server = "http://${bench.server.address}"
[host."http://${mirror.server.address}"]
  capabilities = ["pull"]
`;
  bench.hosts(bench.server.address, text);
  const tag = { layers: [], config: {} };
  const { digest } = bench.server.addManifest('v1', tag);
  const failed: string[] = [];
  const onFailure = ({ error }: { error: Error }): void => void failed.push(error.message);
  const options = { signal: never, onFailure };
  const by_tag = await bench.client.manifest(bench.origin, 'v1', options);
  assert.equal(by_tag.digest, digest);
  assert.equal(
    mirror.server.asked.length,
    0,
    'a mirror that may not resolve is not asked for tags',
  );
  await bench.client.manifest(bench.origin, digest, options);
  assert.deepEqual(
    mirror.server.asked.map(({ url }) => url),
    [`/v2/team/app/manifests/${digest}?ns=${encodeURIComponent(bench.server.address)}`],
  );
  assert.equal(failed.length, 1);
  assert.match(failed[0] ?? '', /answers 404/);
});

test('a manifest with other bytes than its digest names is refused', async (t) => {
  const bench = await registryBench(t);
  const digest = `sha256:${'0'.repeat(64)}`;
  bench.server.addManifest('v1', {});
  bench.server.behaviour = (asked, response) => {
    if (!asked.url.endsWith(digest)) return false;
    response.end('{}');
    return true;
  };
  await assert.rejects(bench.client.manifest(bench.origin, digest, { signal: never }), (e) =>
    hasCode(e, 'protocol_error'),
  );
});

test('a manifest beyond four megabytes is not read', async (t) => {
  const bench = await registryBench(t);
  bench.server.behaviour = (_, response) => {
    response.end(Buffer.alloc(5 * MIB));
    return true;
  };
  await assert.rejects(bench.client.manifest(bench.origin, 'v1', { signal: never }), (e) =>
    hasCode(e, 'protocol_error'),
  );
});

test('on loopback TLS is tried first, and plain HTTP after it', async (t) => {
  const config = { certs_directories: [] };
  const bench = await registryBench(t, { config });
  const { served } = await readPart(bench);
  assert.equal(served.served_by, `http://${bench.server.address}`);
  await readPart(bench);
  const { connections } = bench.server;
  await readPart(bench);
  assert.equal(bench.server.connections, connections, 'TLS is not tried again');
});

test('a port where nobody listens is unavailable, and a name that does not exist too', async (t) => {
  const bench = await registryBench(t);
  bench.hosts('gone.example', 'server = "http://127.0.0.1:1"');
  bench.hosts('name.example', 'server = "http://no-such-host.invalid"');
  for (const registry of ['gone.example', 'name.example']) {
    const origin = { registry, repository: 'a' };
    await assert.rejects(bench.client.manifest(origin, 'v1', { signal: never }), (e) =>
      hasCode(e, 'unavailable'),
    );
  }
});

test('headers of hosts.toml are sent to their endpoint', async (t) => {
  const bench = await registryBench(t);
  bench.hosts(
    bench.server.address,
    `server = "http://${bench.server.address}"\nheader = {X-Token = ["a", "b"]}\n`,
  );
  await readPart(bench);
  assert.equal(bench.server.asked[0]?.headers['x-token'], 'a, b');
});
