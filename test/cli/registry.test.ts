import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import type { RegistryWorld } from '../../src/cli/registry-command.ts';
import { RegistryClient } from '../../src/registry/registry-client.ts';
import type { CheckReport } from '../../src/registry/check.ts';
import { digestOf } from '../../src/oci/digest.ts';
import { registryBench } from '../registry/registry-bench.ts';
import { TokenServer } from '../registry/token-server.ts';
import { commandBench } from './command-bench.ts';

const layer = new Uint8Array(300_000).fill(9);
const config = Buffer.from('{}');

async function bench(t: TestContext, labels: Readonly<Record<string, string>> = {}) {
  const registry = await registryBench(t);
  const { server, put, directory } = registry;
  const blobs = [config, layer].map((bytes) => ({
    mediaType: 'application/octet-stream',
    digest: server.addBlob(bytes),
    size: bytes.length,
  }));
  const [config_blob, layer_blob] = blobs;
  const manifest = server.addManifest('v1', {
    schemaVersion: 2,
    config: config_blob,
    layers: [layer_blob],
  });
  const platform = { os: 'linux', architecture: 'riscv64' };
  const type = 'application/vnd.oci.image.index.v1+json';
  server.addManifest('many', { schemaVersion: 2, manifests: [{ ...manifest, platform }] }, type);
  const world: RegistryWorld = {
    openClient: (c) => new RegistryClient(registry.modules, c),
    containerd: async () => ({
      address: '/nowhere.sock',
      certs_directories: [join(directory, 'certs.d')],
    }),
    openContainerd: async () =>
      ({
        namespaces: async () => ['k8s.io'],
        images: async () => [{ name: `${server.address}/other:v1`, target: '' }],
        blob: async () => ({ size_bytes: 1, labels }),
        [Symbol.dispose]: () => undefined,
      }) as never,
  };
  const commands = commandBench(t, { registry: async () => world });
  const own = put(
    'config.toml',
    `[registry]\ncredential_files = ["${directory}/config.json"]\ncerts_directories = []\nkubelet_directory = "${directory}"\n`,
  );
  const check = (...args: string[]) => commands.run('registry', 'check', '--config', own, ...args);
  const json = async (...args: string[]) => {
    const { code, out, err } = await check('--json', ...args);
    return { code, err, report: JSON.parse(out) as CheckReport & { image: string } };
  };
  return { ...registry, check, json, manifest };
}

test('registry check says where, with what, and what answered', async (t) => {
  const { check, server, credentials, directory } = await bench(t);
  const file = credentials({
    auths: { [server.address]: { username: 'me', password: 'hunter2' } },
  });
  const { code, out, err } = await check(`${server.address}/team/app:v1`);
  assert.equal(err, '');
  assert.equal(code, 0);
  assert.match(out, new RegExp(`^endpoint 1 +http://${server.address}/v2$`, 'm'));
  assert.ok(out.includes(`said by: ${directory}/certs.d/${server.address}/hosts.toml`), out);
  assert.ok(out.includes(`auths["${server.address}"] of ${file}; anonymous`), out);
  assert.match(out, /^ranges +yes: its first 64 KiB in \d+ ms$/m);
  assert.doesNotMatch(out, /hunter2/);
  assert.equal(server.asked.at(-1)?.headers.range, 'bytes=0-65535');
});

test('as JSON the same is one object, and a failure stands in it', async (t) => {
  const { json, server } = await bench(t);
  const good = await json(`${server.address}/team/app:v1`);
  assert.equal(good.code, 0);
  assert.equal(good.report.range?.supported, true);
  assert.equal(good.report.layer?.digest, digestOf(layer));
  const bad = await json(`${server.address}/team/app:none`);
  assert.equal(bad.code, 66);
  assert.equal(bad.err, '');
  assert.equal(bad.report.failure?.code, 'not_found');
  assert.equal(bad.report.failed[0]?.code, 'not_found');
});

test('of an index the manifest of a platform is taken, and one that is not there is named', async (t) => {
  const { json, check, server } = await bench(t);
  const { report } = await json(`${server.address}/a:many`, '--platform', 'linux/riscv64');
  assert.equal(report.layer?.digest, digestOf(layer));
  const { code, err } = await check(`${server.address}/a:many`, '--platform', 'linux/s390x');
  assert.equal(code, 66);
  assert.match(err, /nothing for linux\/s390x/);
});

test('a digest is looked for where its label says, with the port that names of images tell', async (t) => {
  const labels = { 'containerd.io/distribution.source.127.0.0.1': 'team/app' };
  const { json, manifest, server } = await bench(t, labels);
  const { code, report } = await json(manifest.digest);
  assert.equal(code, 0);
  assert.deepEqual(report.origins, [{ registry: server.address, repository: 'team/app' }]);
  const none = await bench(t);
  assert.equal((await none.check(manifest.digest)).code, 66);
});

test('a server that ignores Range is named as one', async (t) => {
  const { check, server } = await bench(t);
  server.behaviour = ({ url }, response) => {
    if (!url.includes('/blobs/')) return false;
    server.blob(url.split('/').at(-1)!, undefined, response);
    return true;
  };
  const { code, out } = await check(`${server.address}/team/app:v1`);
  assert.equal(code, 0);
  assert.match(out, /^ranges +no: the server ignores Range/m);
});

const failures = [
  ['64', ['Not A Name'], 64],
  ['64', ['--platform', 'x', 'reg.example/a'], 64],
  ['64', [], 64],
] as const;

for (const [, args, code] of failures) {
  test(`registry check ${args.join(' ')} ends with ${code}`, async (t) => {
    const { check } = await bench(t);
    assert.equal((await check(...args)).code, code);
  });
}

test('access that is refused ends with 77, a busy registry with 69, a lie with 76', async (t) => {
  for (const [status, expected] of [
    [403, 77],
    [429, 69],
    [418, 76],
  ] as const) {
    const { check, server } = await bench(t);
    server.behaviour = (_, response) => {
      response.writeHead(status).end();
      return true;
    };
    assert.equal((await check(`${server.address}/a:v1`)).code, expected);
  }
});

test('no secret is in anything that is printed, whatever goes wrong', async (t) => {
  const secrets = ['hunter2', 'refresh-me', 's3cret-header', 'helper-secret', 'signed'];
  const { check, server, credentials, hosts } = await bench(t);
  const tokens = await TokenServer.start({ accepted: [], anonymous: false });
  t.after(() => tokens[Symbol.asyncDispose]());
  hosts(
    server.address,
    `server = "http://user:hunter2@${server.address}"\nheader = {X-Key = "s3cret-header"}\n`,
  );
  credentials({
    credsStore: 'none-of-this-name',
    auths: {
      [server.address]: { auth: Buffer.from('me:hunter2').toString('base64') },
      [`${server.address}/team`]: { identitytoken: 'refresh-me' },
    },
  });
  const encoded = Buffer.from('me:hunter2').toString('base64');
  const image = `${server.address}/team/app:v1`;
  const behaviours = [
    tokens.guard(),
    () => false,
    ((_, response) => {
      response.writeHead(307, { location: 'http://169.254.169.254/?signed' }).end();
      return true;
    }) satisfies typeof server.behaviour,
    (({ headers }, response) => {
      response.writeHead(500).end(JSON.stringify(headers));
      return true;
    }) satisfies typeof server.behaviour,
  ];
  let shown = 0;
  for (const accepted of [[], [`Basic ${encoded}`], ['refresh-me']]) {
    tokens.accounts = { accepted };
    for (const behaviour of behaviours) {
      server.behaviour = behaviour;
      for (const args of [[image], ['--json', image]]) {
        const { out, err } = await check(...args);
        shown += out.length;
        for (const secret of [...secrets, encoded, ...tokens.issued]) {
          assert.ok(!`${out}${err}`.includes(secret), `${secret} in ${out}${err}`);
        }
      }
    }
  }
  assert.ok(shown > 10_000 && tokens.issued.length > 0, 'something was printed and shown');
  const told = [...server.asked, ...tokens.asked].map(({ headers, body }) =>
    JSON.stringify([headers, body]),
  );
  for (const secret of ['refresh-me', 's3cret-header', encoded]) {
    assert.ok(
      told.some((text) => text.includes(secret)),
      `${secret} was used`,
    );
  }
});
