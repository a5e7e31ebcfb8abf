import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { parseContentRange, parseRetryAfter } from '../../src/registry/wire/answer-headers.ts';
import { parseChallenges } from '../../src/registry/wire/challenge.ts';

const read = (header: string) =>
  parseChallenges(header).map(({ scheme, parameters }) => [scheme, Object.fromEntries(parameters)]);

const challenges = [
  [
    'Bearer realm="https://auth.example/token",service="registry.example",scope="repository:a/b:pull,push"',
    [
      [
        'bearer',
        {
          realm: 'https://auth.example/token',
          service: 'registry.example',
          scope: 'repository:a/b:pull,push',
        },
      ],
    ],
  ],
  ['Basic realm="a \\"b\\" c"', [['basic', { realm: 'a "b" c' }]]],
  [
    'Basic realm="x", Bearer realm="y" , scope=z',
    [
      ['basic', { realm: 'x' }],
      ['bearer', { realm: 'y', scope: 'z' }],
    ],
  ],
  [
    'Negotiate YIIabc==, Basic realm=x',
    [
      ['negotiate', {}],
      ['basic', { realm: 'x' }],
    ],
  ],
  [
    'Negotiate, Basic realm=x',
    [
      ['negotiate', {}],
      ['basic', { realm: 'x' }],
    ],
  ],
  [', ,BEARER Realm = "x"', [['bearer', { realm: 'x' }]]],
  ['Bearer realm="x",realm="y"', [['bearer', { realm: 'x' }]]],
  ['Bearer realm="no end', [['bearer', {}]]],
  ['', []],
  ['"', []],
] as const;

for (const [header, expected] of challenges) {
  test(`the challenge ${header.slice(0, 50)} is read`, () => {
    assert.deepEqual(read(header), expected);
  });
}

test('challenges that are written out read the same again', () => {
  const token = fc.stringMatching(/^[a-z][a-z0-9]{0,8}$/);
  const value = fc.string({ maxLength: 20 }).map((s) => s.replace(/[^\x20-\x7e]/g, ''));
  const challenge = fc.tuple(token, fc.dictionary(token, value, { minKeys: 1, maxKeys: 4 }));
  fc.assert(
    fc.property(fc.array(challenge, { minLength: 1, maxLength: 3 }), (list) => {
      const text = list
        .map(([scheme, parameters]) => {
          const pairs = Object.entries(parameters).map(
            ([name, v]) => `${name}="${v.replace(/["\\]/g, '\\$&')}"`,
          );
          return `${scheme} ${pairs.join(', ')}`;
        })
        .join(', ');
      assert.deepEqual(
        read(text),
        list.map(([scheme, parameters]) => [scheme, { ...parameters }]),
      );
    }),
  );
});

test('no header makes the reader of challenges fail or dawdle', () => {
  fc.assert(fc.property(fc.string({ maxLength: 300 }), (text) => void parseChallenges(text)));
  const long = 'Bearer '.repeat(100_000) + '='.repeat(100_000);
  const begun = performance.now();
  parseChallenges(long);
  parseChallenges(`Bearer a="${'\\'.repeat(200_000)}`);
  assert.ok(performance.now() - begun < 1_000);
});

test('a content range is read back as it was written', () => {
  const whole = fc.nat({ max: 2 ** 40 });
  fc.assert(
    fc.property(whole, whole, whole, fc.boolean(), (first, more, beyond, known) => {
      const last = first + more;
      const size_bytes = known ? last + beyond + 1 : undefined;
      const text = `bytes ${first}-${last}/${size_bytes ?? '*'}`;
      assert.deepEqual(parseContentRange(text), { first, last, size_bytes });
    }),
  );
});

for (const text of [
  'bytes */100',
  'bytes 5-4/100',
  'bytes 0-100/100',
  'bytes 0-9',
  'items 0-9/100',
  'bytes -5-9/100',
  'bytes 0-99999999999999999999/*',
  '',
]) {
  test(`"${text}" is no content range`, () => assert.equal(parseContentRange(text), undefined));
}

test('no text makes the reader of content ranges fail', () => {
  fc.assert(fc.property(fc.string(), (text) => void parseContentRange(text)));
});

test('Retry-After is seconds or a date, never negative and never longer than five minutes', () => {
  const now = Date.parse('2026-01-01T00:00:00Z');
  assert.equal(parseRetryAfter('2', now), 2_000);
  assert.equal(parseRetryAfter('Thu, 01 Jan 2026 00:00:30 GMT', now), 30_000);
  assert.equal(parseRetryAfter('Wed, 31 Dec 2025 00:00:00 GMT', now), 0);
  assert.equal(parseRetryAfter('86400', now), 300_000);
  assert.equal(parseRetryAfter('soon', now), undefined);
  fc.assert(
    fc.property(fc.string(), (text) => {
      const ms = parseRetryAfter(text, now);
      assert.ok(ms === undefined || (ms >= 0 && ms <= 300_000));
    }),
  );
});
