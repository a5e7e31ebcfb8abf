import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { ROOT } from '../setup/run-tool.ts';

const page = readFileSync(join(ROOT, 'docs/way-of-a-piece.md'), 'utf8');

test('every file and room that the way of a piece names is there', () => {
  const named = page.matchAll(/`([a-z][a-z0-9-]*\/[a-z0-9/-]*(?:\.ts)?)`/g);
  const paths = [...new Set([...named].map((m) => m[1]!))];
  assert.ok(paths.length > 40, `${paths.length} paths found`);
  const missing = paths.filter((path) => !existsSync(join(ROOT, 'src', path)));
  assert.deepEqual(missing, []);
});

test('every name that stands before a file is in that file', () => {
  const named = [...page.matchAll(/`([\w.]+)`\s+\(`([a-z0-9/-]+\.ts)`\)/g)];
  assert.ok(named.length > 20, `${named.length} names found`);
  const missing = named.filter(([, name, path]) => {
    const text = readFileSync(join(ROOT, 'src', path!), 'utf8');
    return name!.split('.').some((part) => !new RegExp(`\\b${part}\\b`).test(text));
  });
  assert.deepEqual(
    missing.map(([text]) => text),
    [],
  );
});
