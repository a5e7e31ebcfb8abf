import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type ErrorCode, hasCode } from '../../src/base/errors.ts';
import { blob, MIB, ofBlobs, readPart } from './blob-part.ts';
import { registryBench } from './registry-bench.ts';
import { type Behaviour, partHeaders } from './registry-server.ts';

const lies: readonly (readonly [what: string, code: ErrorCode, act: Behaviour])[] = [
  [
    'another range',
    'protocol_error',
    (_, response) => {
      response.writeHead(206, partHeaders(0, MIB - 1, blob.length)).end(blob.subarray(0, MIB));
      return true;
    },
  ],
  [
    'more than the range',
    'protocol_error',
    (_, response) => {
      const headers = partHeaders(MIB, 2 * MIB - 1, blob.length);
      response.writeHead(206, { 'content-range': headers['content-range'] }).end(blob);
      return true;
    },
  ],
  [
    'another size',
    'protocol_error',
    (_, response) => {
      response.writeHead(206, partHeaders(MIB, 2 * MIB - 1, 5 * MIB)).end(blob.subarray(0, MIB));
      return true;
    },
  ],
  [
    'no Content-Range',
    'protocol_error',
    (_, response) => {
      response.writeHead(206).end(blob.subarray(0, MIB));
      return true;
    },
  ],
  [
    'several parts',
    'protocol_error',
    (_, response) => {
      response.writeHead(206, { 'content-type': 'multipart/byteranges; boundary=x' }).end('--x');
      return true;
    },
  ],
  [
    'encoded bytes',
    'protocol_error',
    (_, response) => {
      const headers = partHeaders(MIB, 2 * MIB - 1, blob.length);
      response.writeHead(206, { ...headers, 'content-encoding': 'gzip' });
      response.end(blob.subarray(0, MIB));
      return true;
    },
  ],
  [
    'a whole blob of another size',
    'protocol_error',
    (_, response) => {
      response.writeHead(200, { 'content-length': 10 }).end('x'.repeat(10));
      return true;
    },
  ],
  [
    'nothing at all, with status 204',
    'protocol_error',
    (_, response) => {
      response.writeHead(204).end();
      return true;
    },
  ],
  [
    'endless headers',
    'protocol_error',
    (_, response) => {
      response.socket?.write('HTTP/1.1 206 Partial\r\n');
      const more = (): void => {
        while (response.socket?.write(`x-more: ${'y'.repeat(1000)}\r\n`) === true);
      };
      response.socket?.on('drain', more);
      more();
      return true;
    },
  ],
  [
    'what is no HTTP',
    'protocol_error',
    (_, response) => {
      response.socket?.end('+OK ready\r\n');
      return true;
    },
  ],
  [
    'status 416',
    'out_of_range',
    (_, response) => {
      response.writeHead(416).end();
      return true;
    },
  ],
];

for (const [what, code, act] of lies) {
  test(`an answer with ${what} is ${code}`, async (t) => {
    const bench = await registryBench(t);
    bench.server.behaviour = ofBlobs(act);
    await assert.rejects(readPart(bench), (e) => hasCode(e, code));
  });
}

const statuses = [
  [400, 'protocol_error'],
  [401, 'permission_denied'],
  [403, 'permission_denied'],
  [404, 'not_found'],
  [410, 'not_found'],
  [429, 'unavailable'],
  [500, 'unavailable'],
  [503, 'unavailable'],
] as const;

for (const [status, code] of statuses) {
  test(`status ${status} is ${code}, and is not asked for again at once`, async (t) => {
    const bench = await registryBench(t);
    bench.server.behaviour = ofBlobs((_, response) => {
      response.writeHead(status).end('hunter2');
      return true;
    });
    for (let i = 0; i < 3; i++) {
      await assert.rejects(
        readPart(bench),
        (e) => hasCode(e, code) && !e.message.includes('hunter2'),
      );
    }
    assert.equal(bench.server.asked.length, 1);
  });
}
