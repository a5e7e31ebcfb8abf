import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { hasCode } from '../../src/base/errors.ts';
import { defaultEndpoint, endpointUrl, isMirror } from '../../src/registry/places/endpoint.ts';
import { endpointsOf } from '../../src/registry/places/host-directories.ts';
import { parseHostsFile } from '../../src/registry/places/hosts-file.ts';
import { knownRegistries, originsOf } from '../../src/registry/origins.ts';
import { scratch } from './scratch.ts';

const FILE = '/etc/containerd/certs.d/reg.example_5000_/hosts.toml';
const read = (text: string) => parseHostsFile(text, FILE, 'reg.example:5000');
const urls = (text: string) => read(text).map(endpointUrl);

test('hosts come in the order of the file, then the server', () => {
  const text = `server = "https://reg.example:5000"
[host."https://z.example"]
[host."http://a.example:80"]
[host."m.example/v2/project"]
  override_path = true
[host."https://n.example/proxy/"]
`;
  assert.deepEqual(urls(text), [
    'https://z.example/v2',
    'http://a.example/v2',
    'https://m.example/v2/project',
    'https://n.example/proxy/v2',
    'https://reg.example:5000/v2',
  ]);
});

test('without a server the registry itself comes last, Docker Hub at its own address', () => {
  assert.deepEqual(urls('[host."https://m.example"]'), [
    'https://m.example/v2',
    'https://reg.example:5000/v2',
  ]);
  const hub = parseHostsFile('', FILE, 'docker.io');
  assert.deepEqual(hub.map(endpointUrl), ['https://registry-1.docker.io/v2']);
  assert.equal(hub.some(isMirror), false);
});

test('certificates lie beside the file unless they say otherwise, as one path, a list, or pairs', () => {
  const [one, two, three] = read(`ca = "own.pem"
client = "both.pem"
server = "https://s"
[host."https://a"]
  ca = ["a.pem", "/abs/b.pem"]
  client = [["c.cert", "c.key"], "both.pem"]
[host."https://b"]
  skip_verify = true
`);
  const dir = '/etc/containerd/certs.d/reg.example_5000_';
  assert.deepEqual(one?.ca, [`${dir}/a.pem`, '/abs/b.pem']);
  assert.deepEqual(one.client, [
    { cert: `${dir}/c.cert`, key: `${dir}/c.key` },
    { cert: `${dir}/both.pem`, key: `${dir}/both.pem` },
  ]);
  assert.equal(two?.skip_verify, true);
  assert.deepEqual(three?.ca, [`${dir}/own.pem`]);
});

test('capabilities say what an endpoint may be asked; none means all', () => {
  const may = (text: string) => {
    const [first] = read(text);
    return [first?.pull, first?.resolve];
  };
  assert.deepEqual(may('[host."https://a"]\ncapabilities = ["Pull"]'), [true, false]);
  assert.deepEqual(may('[host."https://a"]\ncapabilities = ["push"]'), [false, false]);
  assert.deepEqual(may('[host."https://a"]\ncapabilities = []'), [true, true]);
  assert.deepEqual(may('[host."https://a"]'), [true, true]);
});

test('a host called http that has settings of TLS is tried with TLS first, port 80 excepted', () => {
  const first = (text: string) => {
    const [endpoint] = read(text);
    return [endpoint?.scheme, endpoint?.plain_fallback];
  };
  assert.deepEqual(first('[host."http://a:5000"]\nskip_verify = true'), ['https', true]);
  assert.deepEqual(first('[host."http://a:5000"]'), ['http', false]);
  assert.deepEqual(first('[host."https://a:5000"]\nskip_verify = true'), ['https', false]);
});

const loopback = [
  ['localhost', 'https', false, true],
  ['localhost:443', 'https', false, true],
  ['localhost:5000', 'https', true, true],
  ['127.0.0.7:5000', 'https', true, true],
  ['[::1]:5000', 'https', true, true],
  ['localhost:80', 'http', false, false],
  ['reg.example:5000', 'https', false, false],
  ['localhost.example:5000', 'https', false, false],
] as const;

for (const [registry, scheme, plain_fallback, skip_verify] of loopback) {
  test(`${registry} is asked over ${scheme}${plain_fallback ? ', then in plain' : ''} when no file names it`, () => {
    const endpoint = defaultEndpoint(registry, 'rule');
    assert.equal(endpoint.scheme, scheme);
    assert.equal(endpoint.plain_fallback, plain_fallback);
    assert.equal(endpoint.skip_verify, skip_verify);
  });
}

test('values of headers and passwords in addresses are shown by nothing', () => {
  const [endpoint] = read('[host."https://user:hunter2@a"]\nheader = {X-Token = "s3cret"}');
  assert.equal(endpoint?.headers[0]?.name, 'x-token');
  assert.equal(endpoint.headers[0].value.reveal(), 's3cret');
  assert.doesNotMatch(JSON.stringify(endpoint), /s3cret|hunter2/);
  const broken = [
    'header = {X-Token = "s3cret\\n"}\nserver = "https://a"',
    'header = {X-Token = s3cret}',
    '[host."ftp://user:s3cret@a"]',
    '[host."http://user:s3cret@a:b"]',
  ];
  for (const text of broken) {
    assert.throws(
      () => read(text),
      (e) => hasCode(e, 'config_invalid') && !/s3cret/.test(e.message) && e.cause === undefined,
    );
  }
});

for (const text of [
  'host = 1',
  '[host]\na = 1',
  'ca = 1',
  'server = "https://a"\nclient = [["a"]]',
  'server = "https://a"\nskip_verify = "yes"',
  'server = "https://a"\ncapabilities = ["fly"]',
  'server = "https://a"\ndial_timeout = "soon"',
  'server = "https://"',
  '= 1',
]) {
  test(`hosts.toml with ${JSON.stringify(text)} cannot be used and names the file`, () => {
    assert.throws(
      () => read(text),
      (e) => hasCode(e, 'config_invalid') && e.message.includes(FILE),
    );
  });
}

test('no text makes the reader of hosts.toml fail in another way', () => {
  const words = ['server', 'host', 'ca', 'client', 'header', 'capabilities', 'dial_timeout', '='];
  const text = fc.array(
    fc.oneof(fc.constantFrom(...words), fc.json({ maxDepth: 1 }), fc.constant('\n')),
  );
  fc.assert(
    fc.property(text, (parts) => {
      try {
        read(parts.join(' '));
      } catch (error) {
        assert.ok(hasCode(error, 'config_invalid'), String(error));
      }
    }),
  );
});

test('the first directory that is there decides: with underscores, with the colon, then _default', async (t) => {
  const { directory, put } = scratch(t);
  const roots = ['a', 'b'].map((name) => join(directory, name));
  const where = async (registry: string) => {
    const { endpoints, directory: found } = await endpointsOf(roots, registry);
    return [found?.slice(directory.length + 1), ...endpoints.map(endpointUrl)];
  };
  assert.deepEqual(await where('r:5000'), [undefined, 'https://r:5000/v2']);
  put('b/_default/hosts.toml', 'server = "https://four"');
  assert.deepEqual(await where('r:5000'), ['b/_default', 'https://four/v2']);
  put('b/r:5000/hosts.toml', 'server = "https://three"');
  assert.deepEqual(await where('r:5000'), ['b/r:5000', 'https://three/v2']);
  put('a/_default/hosts.toml', 'server = "https://two"');
  assert.deepEqual(await where('r:5000'), ['a/_default', 'https://two/v2']);
  put('a/r_5000_/hosts.toml', 'server = "https://one"');
  assert.deepEqual(await where('r:5000'), ['a/r_5000_', 'https://one/v2']);
});

test('a directory with certificates alone trusts and shows them', async (t) => {
  const { directory, put } = scratch(t);
  for (const name of ['ca.crt', 'me.cert', 'me.key', 'odd.cert']) put(`r/${name}`, 'x');
  const { endpoints } = await endpointsOf([directory], 'r');
  const path = (name: string) => join(directory, 'r', name);
  assert.deepEqual(endpoints[0]?.ca, [path('ca.crt')]);
  assert.deepEqual(endpoints[0].client, [{ cert: path('me.cert'), key: path('me.key') }]);
});

test('a hosts.toml that cannot be used is told and passed over', async (t) => {
  const { directory, put } = scratch(t);
  const file = put('r/hosts.toml', 'server = ');
  const { endpoints, problems } = await endpointsOf([directory], 'r');
  assert.deepEqual(endpoints.map(endpointUrl), ['https://r/v2']);
  assert.equal(problems.length, 1);
  assert.ok(problems[0]?.includes(file));
});

test('a registry that could be a path is refused', async () => {
  for (const registry of ['..', 'a/b', '', 'a:b:c', 'a\0']) {
    await assert.rejects(endpointsOf(['/'], registry), (e) => hasCode(e, 'invalid_argument'));
  }
});

test("a label's host gets the ports that are known for it, each repository in turn, else 443", async (t) => {
  const { directory, put } = scratch(t);
  for (const name of [
    'reg.example_5000_',
    'reg.example_6000_',
    'third.example:1',
    '_default',
    '.hidden',
  ]) {
    put(`${name}/hosts.toml`, '');
  }
  const names = ['other.example:7000/a:b', 'sha256:abc', 'not a name', 'debian'];
  put('image_manager/pulling/sha256-1', '{"kind":"ImagePullIntent","image":"k8s.example:1/a:b"}');
  put('image_manager/pulling/sha256-2', '{"image":');
  put('image_manager/pulling/sha256-3', '[]');
  put('image_manager/pulling/other', '{"image":"x.example:1/a"}');
  const known = await knownRegistries(
    {
      hosts: ['own.example:1'],
      certs_directories: [directory, '/nowhere'],
      kubelet_directory: directory,
    },
    names,
  );
  assert.deepEqual(known.toSorted(), [
    'docker.io',
    'k8s.example:1',
    'other.example:7000',
    'own.example:1',
    'reg.example:5000',
    'reg.example:6000',
    'third.example:1',
  ]);
  const label = (host: string) => `containerd.io/distribution.source.${host}`;
  const of = (labels: Record<string, string>) =>
    originsOf(labels, known).map(({ registry, repository }) => `${registry}/${repository}`);
  assert.deepEqual(of({ [label('reg.example')]: 'd/x,e/x' }), [
    'reg.example:5000/d/x',
    'reg.example:6000/d/x',
    'reg.example:5000/e/x',
    'reg.example:6000/e/x',
  ]);
  assert.deepEqual(of({ [label('new.example')]: 'a' }), ['new.example/a']);
  assert.deepEqual(of({ [label('::1')]: 'a' }), ['[::1]/a']);
  assert.deepEqual(of({ [label('../x')]: 'a', [label('ok')]: '../a,B', other: 'a' }), []);
  assert.equal(of({ [label('ok')]: 'a,'.repeat(1000) }).length, 16);
});
