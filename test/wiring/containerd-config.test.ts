import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { parse as parseToml } from 'smol-toml';
import { hasCode } from '../../src/base/errors.ts';
import {
  dropInText,
  IMPORTS_GLOB,
  importsCover,
  mapImports,
  parseContainerd,
  unwireMain,
  wireMain,
} from '../../src/host/containerd-config.ts';

/** With ordinary objects: deepEqual compares prototypes. */
const parse = (text: string) => structuredClone(parseToml(text)) as Record<string, unknown>;
const GLOB = JSON.stringify(IMPORTS_GLOB);
const LINE = `imports = [${GLOB}] # added by layerswarm setup`;
const TWO = { file: '/etc/containerd/config.toml', major: 2 };
const ONE = { file: '/etc/containerd/config.toml', major: 1 };

const cases: readonly { id: string; before: string; after: string }[] = [
  {
    id: 'no imports, a version',
    before: 'version = 2\n\n[plugins]\n',
    after: `version = 2\n${LINE}\n\n[plugins]\n`,
  },
  { id: 'no line end at the end', before: 'version = 3', after: `version = 3\n${LINE}\n` },
  {
    id: 'CRLF',
    before: 'version = 2\r\n[grpc]\r\n',
    after: `version = 2\r\n${LINE}\r\n[grpc]\r\n`,
  },
  {
    id: 'only tables, with a comment that belongs to the first',
    before: '# licence\n\n# the socket\n[grpc]\naddress = "/x"\n',
    after: `# licence\n\n${LINE}\n# the socket\n[grpc]\naddress = "/x"\n`,
  },
  { id: 'only comments', before: '# nothing\n', after: `# nothing\n${LINE}\n` },
  {
    id: 'top-level keys without a version',
    before: '# why\ndisabled_plugins = ["a.b.c.d"] # cri\n#root = "x"\n[grpc]\n',
    after: `# why\ndisabled_plugins = ["a.b.c.d"] # cri\n${LINE}\n#root = "x"\n[grpc]\n`,
  },
  { id: 'an empty list', before: 'imports = []\n', after: `imports = [${GLOB}]\n` },
  {
    id: 'a list with a comment alone',
    before: 'imports = [ # none\n]\n',
    after: `imports = [${GLOB} # none\n]\n`,
  },
  {
    id: 'one line',
    before: `imports = ['/a.toml'] # x\n`,
    after: `imports = ['/a.toml', ${GLOB}] # x\n`,
  },
  {
    id: 'one line, trailing comma',
    before: 'imports = ["/a.toml", ]\n',
    after: `imports = ["/a.toml", ${GLOB}, ]\n`,
  },
  {
    id: 'a line each, trailing comma and comments',
    before: 'imports = [\n  "/a.toml", # one\n  # two is next\n  \'/b#].toml\', # two\n]\n',
    after: `imports = [\n  "/a.toml", # one\n  # two is next\n  '/b#].toml', # two\n  ${GLOB},\n]\n`,
  },
  {
    id: 'a line each, no trailing comma',
    before: 'imports = [\n\t"/a.toml" # one\n]\n',
    after: `imports = [\n\t"/a.toml", # one\n\t${GLOB}\n]\n`,
  },
  { id: 'a quoted key', before: '"imports" = ["/a"]\n', after: `"imports" = ["/a", ${GLOB}]\n` },
  {
    id: 'covered',
    before: `imports = ["/etc/containerd/conf.d/*.toml"]\n`,
    after: `imports = ["/etc/containerd/conf.d/*.toml"]\n`,
  },
  {
    id: 'imports of a table are not meant',
    before: 'version = 2\n[x]\nimports = ["/a"]\ntext = """\nimports = []\n"""\n',
    after: `version = 2\n${LINE}\n[x]\nimports = ["/a"]\ntext = """\nimports = []\n"""\n`,
  },
  {
    id: 'a byte order mark',
    before: '\u{feff}version = 2\n',
    after: `\u{feff}version = 2\n${LINE}\n`,
  },
];

for (const { id, before, after } of cases) {
  test(`imports get our directory: ${id}`, () => {
    assert.equal(wireMain(before, TWO).text, after);
    assert.equal(wireMain(after, TWO).text, after);
    if (id !== 'covered') {
      const restored = unwireMain(after);
      assert.deepEqual(
        parse(restored.replace('\u{feff}', '')),
        parse(before.replace('\u{feff}', '')),
      );
      assert.equal(wireMain(restored, TWO).text, wireMain(before, TWO).text);
    }
  });
}

test('a file that is missing is made with the version of its containerd', () => {
  assert.equal(wireMain(undefined, ONE).text, `version = 2\n${LINE}\n`);
  assert.equal(wireMain(undefined, TWO).text, `version = 3\n${LINE}\n`);
});

test('a version 1 file of containerd 1.x becomes version 2, because there the built-in store stays on', () => {
  const { text, notes } = wireMain('# c\n\ndisabled_plugins = ["cri"]\n\n#root = "/x"\n', ONE);
  assert.equal(
    text,
    `# c\n\nversion = 2\n${LINE}\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n\n#root = "/x"\n`,
  );
  assert.equal(notes.length, 1);
  assert.equal(
    wireMain('version = 1\noom_score = 0\n', ONE).text,
    `version = 2\n${LINE}\noom_score = 0\n`,
  );
  assert.equal(
    wireMain('disabled_plugins = ["cri"]\n', TWO).text,
    `disabled_plugins = ["cri"]\n${LINE}\n`,
  );
});

for (const text of [
  '[plugins.cri]\nx = 1\n',
  'disabled_plugins = ["restart"]\n',
  'plugins.cri.x = 1\n',
]) {
  test(`a version 1 file that cannot be translated safely is refused: ${JSON.stringify(text)}`, () => {
    assert.throws(
      () => wireMain(text, ONE),
      (e) => hasCode(e, 'failed_precondition'),
    );
  });
}

test('a file that is no TOML is refused with its line', () => {
  assert.throws(
    () => wireMain('version = 2\nroot = = 3\n', TWO),
    (e) => hasCode(e, 'config_invalid') && e.message.startsWith('/etc/containerd/config.toml:2:'),
  );
  assert.throws(
    () => wireMain('imports = "x"\n', TWO),
    (e) => hasCode(e, 'config_invalid'),
  );
});

test('only written-out globs of the drop-in directory count as covering', () => {
  assert.ok(importsCover(['/x', '/etc/containerd//conf.d/*.toml']));
  assert.ok(importsCover(['/etc/containerd/conf.d/50-layerswarm.toml']));
  for (const no of ['conf.d/*.toml', '/etc/containerd/conf.d/*.conf', '/etc/containerd/*.toml']) {
    assert.ok(!importsCover([no]), no);
  }
});

test('the drop-in holds no version and no plugin settings', () => {
  assert.deepEqual(parse(dropInText('/run/x "y"/z.sock')), {
    disabled_plugins: ['io.containerd.content.v1.content'],
    proxy_plugins: { layerswarm: { type: 'content', address: '/run/x "y"/z.sock' } },
  });
});

test('imports of a check copy are mapped', () => {
  assert.equal(
    mapImports('imports = [ \'a\', # x\n "b" ]\n', (e) => `/r/${e}`),
    'imports = ["/r/a", "/r/b"]\n',
  );
  assert.equal(
    mapImports('x = 1\n', (e) => e),
    'x = 1\n',
  );
});

const name = fc.stringMatching(/^[a-z]{1,8}$/);
const scalar = fc.oneof(
  fc.integer().map(String),
  fc.boolean().map(String),
  fc.constantFrom(
    '1979-05-27 07:32:00Z',
    '"a # ] \\" b"',
    "'lit\\'",
    '"""m "" ]\n#\n""""',
    "'''\n[x]\n'''",
    '0x1F',
    'inf',
    '""',
  ),
);
const value = fc.oneof(
  scalar,
  fc.array(scalar, { maxLength: 4 }).map((l) => `[ ${l.join(',\n  # c ]\n  ')} ]`),
  fc
    .array(scalar, { maxLength: 3 })
    .map((l) => `{ ${l.map((v, i) => `k${i} = ${v}`).join(', ')} }`),
);
const comment = fc.constantFrom('', ' # a "comment" [', '\t#', '  ');
const line = fc.tuple(name, value, comment).map(([k, v, c]) => `key_${k} = ${v}${c}`);
const element = fc.tuple(fc.constantFrom('"/a/*.toml"', "'/b#.toml'", '"/c,]"'), comment);
const imports = fc.option(
  fc
    .tuple(fc.array(element, { maxLength: 4 }), fc.constantFrom('one', 'many', 'trailing'))
    .map(([list, how]) => {
      if (how === 'one') return `imports = [${list.map(([e]) => e).join(', ')}]`;
      const rows = list.map(
        ([e, c], i) => `  ${e}${how === 'trailing' || i < list.length - 1 ? ',' : ''}${c}`,
      );
      return `imports = [\n${rows.join('\n')}\n]`;
    }),
);
const file = fc
  .record({
    head: fc.constantFrom('', '# licence\n', '\n\n'),
    version: fc.constantFrom('version = 2\n', 'version = 3 # three\n'),
    top: fc.uniqueArray(line, { maxLength: 4, selector: (l) => l.split(' ')[0] }),
    imports,
    tables: fc.uniqueArray(
      fc.tuple(name, fc.uniqueArray(line, { maxLength: 3, selector: (l) => l.split(' ')[0] })),
      { maxLength: 3, selector: ([n]) => n },
    ),
    tail: fc.constantFrom('', '\n', '# end'),
    crlf: fc.boolean(),
  })
  .map((f) => {
    const tables = f.tables.map(
      ([n, lines]) => `# about ${n}\n[t_${n}."x.y"]\n${lines.join('\n')}\n`,
    );
    const text = `${f.head}${f.version}${[...f.top, ...(f.imports === null ? [] : [f.imports])].map((l) => `${l}\n`).join('')}${tables.join('\n')}${f.tail}`;
    return f.crlf ? text.replaceAll('\n', '\r\n') : text;
  });

test('whatever the file: only imports change, once, and go away again', () => {
  fc.assert(
    fc.property(file, (text) => {
      const before = parse(text);
      const wired = wireMain(text, TWO).text;
      const after = parse(wired);
      const list = (before['imports'] ?? []) as string[];
      assert.deepEqual(after, { ...before, imports: [...list, IMPORTS_GLOB] });
      assert.equal(wireMain(wired, TWO).text, wired);
      const back = parse(unwireMain(wired));
      assert.deepEqual(back, before);
      // Every line that was there is still there, in order.
      const rest = wired.split('\n');
      for (const l of text.split('\n')) {
        const found = rest.findIndex((r) =>
          r
            .replaceAll(/[,\r]/g, '')
            .includes(l.replaceAll(/[,\r]/g, '').replace(/ *\]$/, '').trim()),
        );
        assert.notEqual(found, -1, l);
        rest.splice(0, found);
      }
    }),
    { numRuns: 600 },
  );
});

test('a text that no parser understands never comes back changed', () => {
  fc.assert(
    fc.property(fc.string(), (text) => {
      try {
        parseContainerd(text, 'f');
      } catch {
        assert.throws(() => wireMain(text, TWO));
      }
    }),
  );
});
