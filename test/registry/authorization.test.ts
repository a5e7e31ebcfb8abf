import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { inspect } from 'node:util';
import { hasCode } from '../../src/base/errors.ts';
import type { Digest } from '../../src/oci/digest.ts';
import { FakeClock } from '../fakes/fake-clock.ts';
import { never, registryBench } from './registry-bench.ts';
import { RegistryServer } from './registry-server.ts';
import { TokenServer } from './token-server.ts';

const bytes = new Uint8Array(1000).fill(1);
const basic = (pair: string): string => `Basic ${Buffer.from(pair).toString('base64')}`;

async function bench(
  t: TestContext,
  ...options: Parameters<typeof registryBench> extends [unknown, ...infer R] ? R : never
) {
  const made = await registryBench(t, ...options);
  const digest = made.server.addBlob(bytes) as Digest;
  const read = async (repository = made.origin.repository) => {
    const wish = { digest, size_bytes: bytes.length, offset: 0, into: new Uint8Array(10) };
    const origin = { ...made.origin, repository };
    return (await made.client.range(origin, wish, { signal: never })).served;
  };
  const login = (auth: object): string =>
    made.credentials({ auths: { [made.server.address]: auth } });
  return { ...made, read, login };
}

async function withTokens(t: TestContext, accounts: TokenServer['accounts'], clock?: FakeClock) {
  const made = await bench(t, clock === undefined ? {} : { clock });
  const tokens = await TokenServer.start(accounts);
  t.after(() => tokens[Symbol.asyncDispose]());
  made.server.behaviour = tokens.guard();
  return { ...made, tokens };
}

test('a public image behind a token server is read with an anonymous token for its scope', async (t) => {
  const { read, tokens, server } = await withTokens(t, { accepted: [], anonymous: true });
  assert.equal((await read()).credential, 'anonymous');
  assert.equal(tokens.asked.length, 1);
  const asked = new URL(tokens.asked[0]!.url, 'http://x');
  assert.equal(asked.searchParams.get('service'), 'test registry');
  assert.equal(asked.searchParams.get('scope'), 'repository:team/app:pull');
  await read();
  assert.equal(server.asked.length, 3, 'the token is sent without being asked for again');
});

test('name and password go to the token server and never to the registry', async (t) => {
  const { read, tokens, server, login } = await withTokens(t, { accepted: [basic('me:hunter2')] });
  const file = login({ username: 'me', password: 'hunter2' });
  assert.equal((await read()).credential, `auths["${server.address}"] of ${file}`);
  assert.equal(tokens.asked[0]?.headers.authorization, basic('me:hunter2'));
  for (const { headers } of server.asked) assert.doesNotMatch(headers.authorization ?? '', /Basic/);
});

test('an identity token is posted, and is in no address', async (t) => {
  const { read, tokens, login } = await withTokens(t, { accepted: ['refresh-me'] });
  login({ identitytoken: 'refresh-me' });
  await read();
  const [asked] = tokens.asked;
  assert.equal(asked?.method, 'POST');
  assert.doesNotMatch(asked.url, /refresh-me/);
  const form = Object.fromEntries(new URLSearchParams(asked.body));
  assert.deepEqual(form, {
    grant_type: 'refresh_token',
    client_id: 'layerswarm',
    service: 'test registry',
    scope: 'repository:team/app:pull',
    refresh_token: 'refresh-me',
  });
});

test('many requests at once ask for one token, and another repository for its own', async (t) => {
  const { read, tokens } = await withTokens(t, { accepted: [], anonymous: true });
  await Promise.all(Array.from({ length: 8 }, () => read()));
  assert.equal(tokens.asked.length, 1);
  await read('team/other');
  assert.equal(tokens.asked.length, 2);
});

test('a token is renewed before it expires', async (t) => {
  const clock = new FakeClock();
  const { read, tokens, server } = await withTokens(
    t,
    { accepted: [], anonymous: true, expires_in: 100 },
    clock,
  );
  await read();
  await clock.advance(89_000);
  await read();
  assert.equal(tokens.issued.length, 1);
  await clock.advance(2_000);
  const before = server.asked.length;
  await read();
  assert.equal(tokens.issued.length, 2);
  assert.equal(server.asked.length - before, 2);
});

test('a token that is refused is fetched again, once', async (t) => {
  const { read, tokens } = await withTokens(t, { accepted: [], anonymous: true });
  await read();
  tokens.revoked.add(tokens.issued[0]!);
  await read();
  assert.equal(tokens.issued.length, 2);
});

test('a wrong password ends as permission_denied, and the next credential is tried before', async (t) => {
  const { read, tokens, login } = await withTokens(t, { accepted: [basic('me:right')] });
  login({ auth: Buffer.from('me:wrong').toString('base64') });
  await assert.rejects(
    read(),
    (e) => hasCode(e, 'permission_denied') && !/wrong|bWU6/.test(inspect(e, { depth: 9 })),
  );
  assert.equal(tokens.asked.length, 2, 'the password, then nobody');
  tokens.accounts = { accepted: [], anonymous: true };
  assert.equal((await read('team/public')).credential, 'anonymous');
});

test('Basic is shown only to who asks for it, and then without being asked again', async (t) => {
  const { read, server, login } = await bench(t);
  login({ username: 'me', password: 'hunter2' });
  server.behaviour = ({ headers }, response) => {
    if (headers.authorization === basic('me:hunter2')) return false;
    response.writeHead(401, { 'www-authenticate': 'Basic realm="registry"' }).end();
    return true;
  };
  await read();
  await read();
  assert.deepEqual(
    server.asked.map(({ headers }) => headers.authorization),
    [undefined, basic('me:hunter2'), basic('me:hunter2')],
  );
});

test('a registry that asks for nothing is shown nothing', async (t) => {
  const { read, server, login } = await bench(t);
  login({ username: 'me', password: 'hunter2' });
  assert.equal((await read()).credential, 'anonymous');
  assert.equal(server.asked[0]?.headers.authorization, undefined);
});

test('a mirror is never shown the credentials of the registry it stands for', async (t) => {
  const made = await bench(t);
  made.login({ username: 'me', password: 'hunter2' });
  const mirror = await RegistryServer.start();
  t.after(() => mirror[Symbol.asyncDispose]());
  mirror.behaviour = (_, response) => {
    response.writeHead(401, { 'www-authenticate': 'Basic realm="x"' }).end();
    return true;
  };
  const { address } = made.server;
  made.hosts(address, `server = "http://${address}"\n[host."http://${mirror.address}"]\n`);
  await made.read();
  assert.ok(mirror.asked.length > 0);
  for (const { headers } of mirror.asked) assert.equal(headers.authorization, undefined);
});

test('behind a redirect nobody sees credentials, headers of hosts.toml or cookies', async (t) => {
  const made = await bench(t);
  const { server, hosts, login, read } = made;
  const storage = await RegistryServer.start();
  t.after(() => storage[Symbol.asyncDispose]());
  storage.addBlob(bytes);
  hosts(server.address, `server = "http://${server.address}"\nheader = {X-Token = "s3cret"}\n`);
  login({ username: 'me', password: 'hunter2' });
  server.behaviour = ({ headers, url }, response) => {
    if (headers.authorization === undefined) {
      response.writeHead(401, { 'www-authenticate': 'Basic realm="x"' }).end();
    } else {
      const location = `http://${storage.address}${url}?X-Amz-Signature=signed`;
      response.writeHead(307, { location, 'set-cookie': 'session=1' }).end();
    }
    return true;
  };
  const served = await read();
  assert.equal(served.served_by, `http://${storage.address}`);
  const { headers } = storage.asked[0]!;
  assert.deepEqual(Object.keys(headers).toSorted(), [
    'accept-encoding',
    'connection',
    'host',
    'range',
    'user-agent',
  ]);
  storage.behaviour = (_, response) => {
    response.writeHead(403).end('hunter2');
    return true;
  };
  await assert.rejects(
    read('team/other'),
    (e) => hasCode(e, 'permission_denied') && !/signed|hunter2|s3cret/.test(inspect(e)),
  );
});

test('storage that sends us back to the registry does not get our credentials sent there', async (t) => {
  const made = await bench(t);
  const { server, login, read } = made;
  const storage = await RegistryServer.start();
  t.after(() => storage[Symbol.asyncDispose]());
  login({ username: 'me', password: 'hunter2' });
  server.behaviour = ({ headers, url }, response) => {
    if (url.startsWith('/other')) return false;
    if (headers.authorization === undefined) {
      response.writeHead(401, { 'www-authenticate': 'Basic realm="x"' }).end();
    } else response.writeHead(307, { location: `http://${storage.address}/` }).end();
    return true;
  };
  storage.behaviour = (_, response) => {
    response.writeHead(307, { location: `http://${server.address}/other` }).end();
    return true;
  };
  await assert.rejects(read(), (e) => hasCode(e, 'not_found'));
  assert.equal(server.asked.at(-1)?.url, '/other');
  assert.equal(server.asked.at(-1)?.headers.authorization, undefined);
});

const locations = [
  ['back to itself, for ever', (address: string, url: string) => `http://${address}${url}`],
  ['to what is no address', () => 'http://:x'],
  ['to a file', () => 'file:///etc/passwd'],
  ['to a metadata service', () => 'http://169.254.169.254/latest/meta-data/'],
  ['to a metadata service in other words', () => 'http://[::ffff:169.254.169.254]/'],
  ['to a number that is one', () => 'http://2852039166/'],
  ['to an unspecified address', () => 'http://0.0.0.0/'],
  ['with a user in it', () => 'http://user:hunter2@127.0.0.2/'],
] as const;

for (const [what, location] of locations) {
  test(`a redirect ${what} is refused`, async (t) => {
    const { server, read } = await bench(t);
    server.behaviour = ({ url }, response) => {
      response.writeHead(302, { location: location(server.address, url) }).end();
      return true;
    };
    await assert.rejects(
      read(),
      (e) => hasCode(e, 'protocol_error') && !/hunter2/.test(inspect(e)),
    );
    assert.ok(server.asked.length <= 6, String(server.asked.length));
  });
}

test('a token server at a metadata address is not asked', async (t) => {
  const { server, read, login } = await bench(t);
  login({ username: 'me', password: 'hunter2' });
  server.behaviour = (_, response) => {
    const challenge = 'Bearer realm="http://169.254.169.254/token"';
    response.writeHead(401, { 'www-authenticate': challenge }).end();
    return true;
  };
  await assert.rejects(read(), (e) => hasCode(e, 'protocol_error'));
});

const nonsense = [
  '',
  'hunter2',
  '[]',
  '{}',
  '{"token":""}',
  '{"token":"a\\nb"}',
  'x'.repeat(200_000),
];

for (const answer of nonsense) {
  test(`a token server that answers ${JSON.stringify(answer.slice(0, 20))} is told without its words`, async (t) => {
    const { server, read } = await bench(t);
    const tokens = await RegistryServer.start();
    t.after(() => tokens[Symbol.asyncDispose]());
    tokens.behaviour = (_, response) => {
      response.end(answer);
      return true;
    };
    server.behaviour = (_, response) => {
      const challenge = `Bearer realm="http://${tokens.address}/"`;
      response.writeHead(401, { 'www-authenticate': challenge }).end();
      return true;
    };
    await assert.rejects(
      read(),
      (e) => hasCode(e, 'protocol_error') && !/hunter2/.test(inspect(e, { depth: 9 })),
    );
  });
}

test('a token server that is silent costs ten seconds at most', async (t) => {
  const clock = new FakeClock();
  const { server, read } = await bench(t, { clock });
  const tokens = await RegistryServer.start();
  t.after(() => tokens[Symbol.asyncDispose]());
  const arrived = Promise.withResolvers<boolean>();
  tokens.behaviour = () => {
    arrived.resolve(true);
    return true;
  };
  server.behaviour = (_, response) => {
    const challenge = `Bearer realm="http://${tokens.address}/"`;
    response.writeHead(401, { 'www-authenticate': challenge }).end();
    return true;
  };
  const failed = assert.rejects(read(), (e) => hasCode(e, 'deadline_exceeded'));
  await arrived.promise;
  await clock.advance(10_000);
  await failed;
});
