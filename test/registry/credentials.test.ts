import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { inspect } from 'node:util';
import { runProgram } from '../../src/host/run-program.ts';
import type { CredentialAnswer } from '../../src/registry/credentials/credential.ts';
import { Credentials } from '../../src/registry/credentials/credentials.ts';
import { matchesImage } from '../../src/registry/credentials/image-pattern.ts';
import type { RunProgram } from '../../src/registry/ground/run-program.ts';
import { FakeClock } from '../fakes/fake-clock.ts';
import { scratch } from './scratch.ts';

const image = { registry: 'reg.example:5000', repository: 'team/app' };
const basic = (pair: string): string => Buffer.from(pair).toString('base64');

/** What was found, with the secrets in the clear. */
const revealed = ({ credentials }: CredentialAnswer) =>
  credentials.map((c) => {
    if (c.kind === 'anonymous') return 'anonymous';
    if (c.kind === 'identity_token') return `token ${c.token.reveal()}`;
    return `${c.username.reveal()}:${c.password.reveal()}`;
  });

function bench(t: TestContext, run: RunProgram = runProgram) {
  const { directory, put } = scratch(t);
  const clock = new FakeClock();
  const kubelet = { config: '', bin_directory: '' };
  const of = (files: string[], places = kubelet) =>
    new Credentials({ clock, run }, { files, kubelet: places });
  return { directory, put, clock, of };
}

const patterns = [
  ['reg.example:5000', true],
  ['https://reg.example:5000', true],
  ['reg.example:5000/team', true],
  ['reg.example:5000/team/app', true],
  ['reg.example:5000/te', false],
  ['reg.example:5000/team/app/more', false],
  ['reg.example', false],
  ['*.example:5000', true],
  ['r*g.ex*le:5000', true],
  ['*:5000', false],
  ['*.*:5000', true],
  ['reg.*', false],
  ['reg.example:*', false],
  ['', false],
] as const;

for (const [pattern, fits] of patterns) {
  test(`the pattern "${pattern}" ${fits ? 'fits' : 'does not fit'} an image of another host or path`, () => {
    assert.equal(matchesImage(pattern, image), fits);
  });
}

test('the longest key comes first, then shorter ones, then nobody', async (t) => {
  const { put, of } = bench(t);
  const auths = {
    'reg.example:5000': { auth: basic('host:a') },
    'https://reg.example:5000/v1/': { auth: basic('v1:b') },
    'reg.example:5000/team': { username: 'team', password: 'c:d' },
    'reg.example': { auth: basic('other:e') },
    '*.example:5000': { identitytoken: 'f' },
  };
  const file = put('config.json', JSON.stringify({ auths }));
  const found = await of([file]).find(image);
  assert.deepEqual(revealed(found), ['v1:b', 'team:c:d', 'host:a', 'token f', 'anonymous']);
  assert.equal(found.credentials[1]?.name, `auths["reg.example:5000/team"] of ${file}`);
});

test('Docker Hub is found under each of its names', async (t) => {
  const { put, of } = bench(t);
  for (const key of ['https://index.docker.io/v1/', 'docker.io', 'registry-1.docker.io']) {
    const file = put('hub.json', JSON.stringify({ auths: { [key]: { auth: basic('u:p') } } }));
    const hub = { registry: 'docker.io', repository: 'library/debian' };
    assert.deepEqual(revealed(await of([file]).find(hub)), ['u:p', 'anonymous'], key);
  }
});

test('files are looked through in order, and one that cannot be used is told without a word of what is in it', async (t) => {
  const { put, of } = bench(t);
  const good = put(
    'good.json',
    JSON.stringify({ auths: { 'reg.example:5000': { auth: basic('u:p') } } }),
  );
  const bad = put('bad.json', '{"auths": {"x": {"auth": hunter2}}}');
  const found = await of(['/nowhere/config.json', bad, good]).find(image);
  assert.deepEqual(revealed(found), ['u:p', 'anonymous']);
  assert.deepEqual(
    found.problems.map(({ name }) => name),
    [bad],
  );
  assert.doesNotMatch(JSON.stringify(found.problems), /hunter2/);
});

test('an entry without a name, or no object at all, gives nothing', async (t) => {
  const { put, of } = bench(t);
  for (const entry of [{ auth: basic(':p') }, { auth: '%%%' }, {}, null, 'x', { username: 'u' }]) {
    const file = put('c.json', JSON.stringify({ auths: { 'reg.example:5000': entry } }));
    assert.deepEqual(revealed(await of([file]).find(image)), ['anonymous'], JSON.stringify(entry));
  }
});

test('an answer is kept for a minute, and one search goes on at a time', async (t) => {
  let asked = 0;
  const { put, of, clock } = bench(t, async () => {
    asked++;
    return { code: 0, stdout: '{"Username":"u","Secret":"p"}' };
  });
  const file = put('c.json', JSON.stringify({ credsStore: 'store' }));
  const credentials = of([file]);
  await Promise.all([credentials.find(image), credentials.find(image)]);
  await credentials.find(image);
  assert.equal(asked, 1);
  await clock.advance(60_001);
  await credentials.find(image);
  assert.equal(asked, 2);
});

test('credHelpers comes before credsStore, and the program gets the server on stdin and nothing on its command line', async (t) => {
  const calls: [readonly string[], string | undefined][] = [];
  const { put, of } = bench(t, async (argv, { input }) => {
    calls.push([argv, input]);
    return { code: 0, stdout: '{"Username":"<token>","Secret":"refresh"}' };
  });
  const config = { credsStore: 'store', credHelpers: { 'reg.example:5000': 'ecr-login' } };
  const file = put('c.json', JSON.stringify(config));
  const found = await of([file]).find(image);
  assert.deepEqual(revealed(found), ['token refresh', 'anonymous']);
  await of([file]).find({ registry: 'docker.io', repository: 'a' });
  assert.deepEqual(calls, [
    [['docker-credential-ecr-login', 'get'], 'reg.example:5000'],
    [['docker-credential-store', 'get'], 'https://index.docker.io/v1/'],
  ]);
});

test('a program whose name leads elsewhere is never run', async (t) => {
  let asked = 0;
  const { put, of } = bench(t, async () => {
    asked++;
    return { code: 0, stdout: '' };
  });
  for (const credsStore of ['../evil', 'a/b', 'a b', '$(x)', 1, '']) {
    const file = put('c.json', JSON.stringify({ credsStore }));
    assert.deepEqual(revealed(await of([file]).find(image)), ['anonymous']);
  }
  assert.equal(asked, 0);
});

const answers = [
  ['that knows nothing', 'echo credentials not found in native keychain; exit 1', /^$/],
  ['that fails', 'echo hunter2; echo hunter2 >&2; exit 3', /ended with 3/],
  ['that prints nonsense', 'echo hunter2', /not what docker-credential programs say/],
  ['that never stops printing', 'yes hunter2', /took longer|not what|could not be run/],
] as const;

for (const [what, script, says] of answers) {
  test(`a credential program ${what} is passed over, and nothing it printed is told`, async (t) => {
    const { directory, put, of } = bench(t, (argv, limits) => {
      const [program = '', ...args] = argv;
      return runProgram([join(directory, program), ...args], {
        ...limits,
        deadline_ms: Math.min(limits.deadline_ms, 1_000),
      });
    });
    put('docker-credential-test', `#!/bin/sh\n${script}\n`, 0o755);
    const file = put('c.json', JSON.stringify({ credsStore: 'test' }));
    const found = await of([file]).find(image);
    assert.deepEqual(revealed(found), ['anonymous']);
    assert.match(found.problems.map(({ why }) => why).join(), says);
    assert.doesNotMatch(inspect(found, { depth: 9 }), /hunter2/);
  });
}

test('a program that is not installed is told by its name', async (t) => {
  const { put, of } = bench(t);
  const file = put('c.json', JSON.stringify({ credsStore: 'nobody-has-this' }));
  const { problems } = await of([file]).find(image);
  assert.deepEqual(problems, [
    {
      name: `docker-credential-nobody-has-this (credsStore of ${file})`,
      why: 'docker-credential-nobody-has-this is not installed',
    },
  ]);
});

const PROVIDER = `#!/bin/sh
read request
case "$request" in *'"kind":"CredentialProviderRequest","image":"reg.example:5000/team/app"'*) ;; *) exit 9 ;; esac
[ "$1" = get ] && [ "$REGION" = north ] || exit 8
echo '{"kind":"CredentialProviderResponse","apiVersion":"credentialprovider.kubelet.k8s.io/v1","cacheKeyType":"Image","cacheDuration":"30s","auth":{"*.example:5000":{"username":"AWS","password":"hunter2"},"elsewhere":{"username":"x","password":"y"}}}'
`;

function providerConfig(more = ''): string {
  return `apiVersion: kubelet.config.k8s.io/v1
kind: CredentialProviderConfig
providers:
  - name: ecr
    matchImages: ["*.example:5000", "elsewhere"]
    defaultCacheDuration: "12h"
    apiVersion: credentialprovider.kubelet.k8s.io/v1
    args: [get]
    env: [{name: REGION, value: north}]
${more}`;
}

test("the kubelet's providers are asked as the kubelet asks them, and their answer lasts as long as they say", async (t) => {
  const { directory, put, of, clock } = bench(t);
  const config = put('providers.yaml', providerConfig());
  put('bin/ecr', PROVIDER, 0o755);
  const credentials = of([], { config, bin_directory: join(directory, 'bin') });
  const found = await credentials.find(image);
  assert.deepEqual(revealed(found), ['AWS:hunter2', 'anonymous']);
  assert.equal(
    found.credentials[0]?.name,
    `kubelet's credential provider ecr (auth "*.example:5000")`,
  );
  assert.doesNotMatch(inspect(found, { depth: 9 }), /hunter2|AWS:/);
  put('bin/ecr', PROVIDER.replace('hunter2', 'renewed'), 0o755);
  await clock.advance(29_000);
  assert.deepEqual(revealed(await credentials.find(image)), ['AWS:hunter2', 'anonymous']);
  await clock.advance(2_000);
  assert.deepEqual(revealed(await credentials.find(image)), ['AWS:renewed', 'anonymous']);
});

test('a provider that needs the token of a pod is passed over by name, and no other is asked than fits', async (t) => {
  const { directory, put, of } = bench(t);
  const more = `  - name: pods
    matchImages: ["reg.example:5000"]
    apiVersion: credentialprovider.kubelet.k8s.io/v1
    tokenAttributes: {serviceAccountTokenAudience: x}
  - name: other
    matchImages: ["other.example"]
`;
  const config = put('providers.yaml', providerConfig(more));
  put('bin/ecr', PROVIDER, 0o755);
  const places = { config, bin_directory: join(directory, 'bin') };
  const { problems } = await of([], places).find(image);
  assert.deepEqual(
    problems.map(({ name }) => name),
    ["kubelet's credential provider pods"],
  );
});

for (const [what, text] of [
  ['no YAML', 'a: [hunter2'],
  ['no configuration of providers', 'kind: Pod'],
  [
    'a provider outside its directory',
    'kind: CredentialProviderConfig\nproviders: [{name: ../../bin/sh}]',
  ],
  ['aliases', 'kind: &a CredentialProviderConfig\nproviders: [*a, *a]'],
] as const) {
  test(`a file of providers with ${what} is told and passed over`, async (t) => {
    const { put, of } = bench(t);
    const config = put('providers.yaml', text);
    const found = await of([], { config, bin_directory: '/nowhere' }).find(image);
    assert.deepEqual(revealed(found), ['anonymous']);
    assert.match(found.problems[0]?.why ?? '', /cannot be used/);
    assert.doesNotMatch(JSON.stringify(found), /hunter2/);
  });
}
