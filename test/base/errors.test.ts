import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';
import { DaemonError, errnoOf, hasCode, isAbort } from '../../src/base/errors.ts';

test('an error is told by its code, never by its text', () => {
  const error: unknown = new DaemonError('not_found', 'blob x is not here', {}, { cause: 1 });
  assert.ok(hasCode(error, 'unavailable', 'not_found'));
  assert.ok(!hasCode(error, 'unavailable'));
  assert.ok(!hasCode(new Error('not_found'), 'not_found'));
  assert.equal((error as Error).cause, 1);
});

test('the system code of a failed file operation is found', async () => {
  const error: unknown = await readFile('/nonexistent/file').catch((e: unknown) => e);
  assert.equal(errnoOf(error), 'ENOENT');
  assert.equal(errnoOf('text'), undefined);
  assert.equal(errnoOf(Object.assign(new Error(), { code: 7 })), undefined);
});

test('both our cancellation and the abort errors of the platform count as an abort', () => {
  assert.ok(isAbort(new DaemonError('cancelled', 'the caller went away')));
  assert.ok(isAbort(new DOMException('x', 'AbortError')));
  assert.ok(!isAbort(new DOMException('x', 'TimeoutError')));
});
