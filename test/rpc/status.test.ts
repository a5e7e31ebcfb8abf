import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DaemonError } from '../../src/base/errors.ts';
import {
  fromGrpcStatus,
  STATUS,
  toGrpcStatus,
  type UnforeseenError,
} from '../../src/rpc/status.ts';

test('exit codes are distinct and none is a success', () => {
  const exits = Object.values(STATUS).map(({ exit }) => exit);
  assert.equal(new Set(exits).size, exits.length);
  assert.ok(exits.every((exit) => exit > 2 && exit < 255));
});

test('codes survive the way over the wire, the internal ones as internal', () => {
  for (const code of Object.keys(STATUS) as (keyof typeof STATUS)[]) {
    const { grpc, message } = toGrpcStatus(new DaemonError(code, 'what happened'), () => undefined);
    const shared = { protocol_error: 'internal', config_invalid: 'invalid_argument' } as const;
    const expected = code in shared ? shared[code as keyof typeof shared] : code;
    assert.equal(fromGrpcStatus(grpc, message).code, expected);
  }
  assert.equal(fromGrpcStatus(2, '').code, 'internal');
  assert.equal(fromGrpcStatus(99, '').code, 'internal');
});

test('aborts and timeouts of the platform have their codes; the unforeseen goes to the log only', () => {
  const found: UnforeseenError[] = [];
  const codeOf = (error: unknown): string => toGrpcStatus(error, (e) => found.push(e)).code;
  assert.equal(codeOf(new DOMException('', 'AbortError')), 'cancelled');
  assert.equal(codeOf(new DOMException('', 'TimeoutError')), 'deadline_exceeded');
  assert.equal(found.length, 0);
  const status = toGrpcStatus('a string', (e) => found.push(e));
  assert.equal(status.code, 'internal');
  assert.equal(found[0]?.err, 'a string');
  assert.ok(status.message.includes(found[0].id));
});
