import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { hasCode } from '../../src/base/errors.ts';
import { parseFilters } from '../../src/content/filter.ts';
import { withCode } from './content-door.ts';

const object: Readonly<Record<string, string>> = {
  digest: 'sha256:abc',
  size: '42',
  'labels.app': 'web',
  'labels.containerd.io/gc.root': '2020-01-01T00:00:00Z',
  'labels.say "hi"': 'a, b',
};
const field = (path: readonly string[]): string | undefined => object[path.join('.')];

const accepted: { filters: string[]; passes: boolean }[] = [
  { filters: [], passes: true },
  { filters: [''], passes: true },
  { filters: ['digest==sha256:abc'], passes: true },
  { filters: ['digest == sha256:abc'], passes: true },
  { filters: ['digest==sha256:abd'], passes: false },
  { filters: ['digest!=sha256:abd'], passes: true },
  { filters: ['nothing!=x'], passes: true },
  { filters: ['nothing==x'], passes: false },
  { filters: ['nothing'], passes: false },
  { filters: ['labels.app'], passes: true },
  { filters: ['size==42,labels.app==web'], passes: true },
  { filters: ['size==42,labels.app==db'], passes: false },
  { filters: ['size==1', 'labels.app==web'], passes: true },
  { filters: ['labels."containerd.io/gc.root"'], passes: true },
  { filters: ['labels."containerd.io/gc.root"==2020-01-01T00:00:00Z'], passes: true },
  { filters: ['labels."say \\"hi\\""=="a, b"'], passes: true },
  { filters: ['labels.app=="w\\x65b"'], passes: true },
  { filters: ['labels.app=="w\\u0065\\142"'], passes: true },
  { filters: ['digest~=^sha256:a'], passes: true },
  { filters: ['digest~=/^sha256:[a-c]+$/'], passes: true },
  { filters: ['labels."containerd.io/gc.root"~=|T00|'], passes: true },
  { filters: ['digest~=b$'], passes: false },
];
for (const { filters, passes } of accepted) {
  test(`${JSON.stringify(filters)} lets the object ${passes ? 'pass' : 'not pass'}`, () => {
    assert.equal(parseFilters(filters)(field), passes);
  });
}

const refused = [
  '==',
  'digest=',
  'digest==',
  'digest===x',
  'digest<1',
  'digest==x,',
  ',digest==x',
  'digest==x labels',
  'digest=="open',
  'digest==/pattern quotes/',
  'labels.',
  '.labels',
  'digest=="\\q"',
  'digest=="\\U00110000"',
  'digest~=(',
  'digest~="(a+)+$"',
  'digest~="a*b*c*"',
  'digest~="(a)\\\\1"',
  'digest~=a?a?a?a?a?a?a?a',
  'size\u0000',
  'x'.repeat(5000),
];
for (const filter of refused) {
  test(`the filter ${JSON.stringify(filter.slice(0, 40))} is refused`, () => {
    assert.throws(() => parseFilters([filter]), withCode('invalid_argument'));
  });
}

test('more filters than anybody needs are refused', () => {
  assert.throws(() => parseFilters(Array<string>(65).fill('a')), withCode('invalid_argument'));
});

test('any text is a filter or refused, and a filter gives an answer', () => {
  const piece = fc.constantFrom(
    'digest',
    '==',
    '!=',
    '~=',
    '.',
    ',',
    '"',
    '/',
    '\\',
    '(',
    'a*',
    ' ',
  );
  const text = fc.oneof(
    fc.string({ unit: 'binary' }),
    fc.array(piece, { maxLength: 12 }).map((parts) => parts.join('')),
  );
  fc.assert(
    fc.property(fc.array(text, { maxLength: 3 }), (filters) => {
      try {
        assert.equal(typeof parseFilters(filters)(field), 'boolean');
      } catch (error) {
        assert.ok(hasCode(error, 'invalid_argument'), String(error));
      }
    }),
    { numRuns: 1000 },
  );
});
