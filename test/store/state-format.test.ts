import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { hasCode } from '../../src/base/errors.ts';
import { claimStateFormat } from '../../src/store/disk/format.ts';

function stateDirectory(t: TestContext): { directory: string; mark: string } {
  const directory = mkdtempSync(join(tmpdir(), 'layerswarm-state-'));
  t.after(() => rmSync(directory, { recursive: true }));
  return { directory, mark: join(directory, 'format') };
}

test('a state directory without a mark is marked and stays as it is otherwise', (t) => {
  const { directory, mark } = stateDirectory(t);
  writeFileSync(join(directory, 'identity.key'), 'key');
  claimStateFormat(directory);
  assert.equal(readFileSync(mark, 'utf8'), '1\n');
  claimStateFormat(directory);
  assert.deepEqual(readdirSync(directory).sort(), ['format', 'identity.key']);
});

test('an older format is taken over, also back and forth between neighbours that both know it', (t) => {
  const { directory, mark } = stateDirectory(t);
  claimStateFormat(directory, 1);
  claimStateFormat(directory, 2);
  assert.equal(readFileSync(mark, 'utf8'), '2\n');
});

test('a newer format is refused with both numbers and what to do, and nothing is changed', (t) => {
  const { directory, mark } = stateDirectory(t);
  claimStateFormat(directory, 3);
  assert.throws(
    () => {
      claimStateFormat(directory, 2);
    },
    (error) =>
      hasCode(error, 'failed_precondition') &&
      /format 3.*up to 2.*install the newer version/.test(error.message),
  );
  assert.equal(readFileSync(mark, 'utf8'), '3\n');
});

for (const { id, text } of [
  { id: 'words', text: 'one\n' },
  { id: 'a fraction', text: '1.5' },
  { id: 'zero', text: '0' },
  { id: 'too many digits', text: '99999999' },
]) {
  test(`a mark that is no number of a format is refused: ${id}`, (t) => {
    const { directory, mark } = stateDirectory(t);
    writeFileSync(mark, text);
    assert.throws(
      () => {
        claimStateFormat(directory);
      },
      (error) => hasCode(error, 'failed_precondition') && error.message.includes(mark),
    );
  });
}

for (const { id, text } of [
  { id: 'empty', text: '' },
  { id: 'full of zeros, whose blocks were never written', text: '\0\0' },
]) {
  test(`a mark that a crash left ${id} is written again`, (t) => {
    const { directory, mark } = stateDirectory(t);
    writeFileSync(mark, text);
    claimStateFormat(directory);
    assert.equal(readFileSync(mark, 'utf8'), '1\n');
  });
}
