import assert from 'node:assert/strict';
import { test } from 'node:test';
import { dialFailure } from '../../../src/swarm/membership/dial-failure.ts';

test('the reason of a failed dial is found inside whatever libp2p wraps around it', () => {
  const refused = Object.assign(new Error('x'), { code: 'ECONNREFUSED' });
  const self = Object.assign(new Error('x'), { name: 'InvalidPeerIdError' });
  assert.equal(dialFailure(new AggregateError([new Error('y', { cause: refused })])), 'refused');
  assert.equal(dialFailure(new Error('z', { cause: self })), 'self');
  assert.equal(dialFailure(new DOMException('t', 'TimeoutError')), 'timeout');
  assert.equal(dialFailure('odd'), 'unreachable');
});
