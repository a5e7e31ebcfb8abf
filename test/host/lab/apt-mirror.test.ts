import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { debianEntry, parseDeb822, parseOneLine } from './apt-mirror.ts';

suite('the Debian mirror is read from the apt configuration', () => {
  test('a deb822 stanza gives its mirror, suites, components and key ring', () => {
    const text = `Types: deb deb-src
# a comment
URIs: http://mirror.test/debian
Suites: bookworm
 bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/k.gpg

Types: deb
Enabled: no
URIs: http://off.test/debian
Suites: bookworm
Components: main
`;
    assert.deepEqual(parseDeb822(text), [
      {
        uri: 'http://mirror.test/debian',
        suites: ['bookworm', 'bookworm-updates'],
        components: ['main', 'contrib'],
        signedBy: '/usr/share/keyrings/k.gpg',
      },
    ]);
  });

  test('a one-line entry gives the same, with and without options', () => {
    const text = `# deb http://old.test/debian bookworm main
deb [arch=amd64 signed-by=/k.gpg] http://a.test/debian bookworm main contrib # why
deb-src http://a.test/debian bookworm main
deb http://b.test/debian sid main
`;
    assert.deepEqual(parseOneLine(text), [
      {
        uri: 'http://a.test/debian',
        suites: ['bookworm'],
        components: ['main', 'contrib'],
        signedBy: '/k.gpg',
      },
      { uri: 'http://b.test/debian', suites: ['sid'], components: ['main'] },
    ]);
  });

  test('only an entry with the plain suite and main counts as the Debian mirror', () => {
    const entry = (uri: string, suite: string, component: string) => ({
      uri,
      suites: [suite],
      components: [component],
    });
    const wanted = entry('c', 'bookworm', 'main');
    const others = [entry('a', 'bookworm-security', 'main'), entry('b', 'bookworm', 'contrib')];
    assert.equal(debianEntry([...others, wanted]), wanted);
    assert.equal(debianEntry(others), undefined);
  });
});
