// `layerswarm registry check` against a real registry behind nginx: TLS of an own CA, basic authentication, a token server, client certificates, a server
// that ignores Range, a redirect to another host, and rate limits.
import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { after, before, suite, test } from 'node:test';
import type { CheckReport } from '../../src/registry/check.ts';
import type { TestImage } from '../fixtures/image.ts';
import { buildImage } from '../fixtures/image.ts';
import { LabContainerd } from './lab/containerd.ts';
import { cacheDir, debianTools } from './lab/debian-packages.ts';
import type { ContainerdLine, DebianTools } from './lab/debian-packages.ts';
import type { LabHost } from './lab/host.ts';
import { LabNetwork } from './lab/netns.ts';
import { type LabCertificates, labCertificates, RegistryFront } from './lab/registry-front.ts';
import { LabRegistry } from './lab/registry.ts';
import type { CommandResult } from './lab/run-command.ts';
import { hostReason, leftBehind, NOTHING_LEFT } from './swarm-lab.ts';

const MAIN = resolve(import.meta.dirname, '../../src/main.ts');
const TOKEN_SERVER = resolve(import.meta.dirname, 'lab/token-server.ts');
const NODE = [process.execPath, '--disable-warning=ExperimentalWarning'];
const PASSWORD = 'hunter2-and-more';
const HEADER = 's3cret-of-hosts-toml';
const BASIC = Buffer.from(`puller:${PASSWORD}`).toString('base64');
/** Values that nothing may print. */
const SECRETS = [PASSWORD, HEADER, BASIC];
/** The ports of nginx, by what they do. */
const PORTS = {
  tls: 8443,
  basic: 8444,
  client: 8445,
  no_ranges: 8446,
  redirect: 8447,
  limited: 8448,
  tokens: 8449,
  token_server: 8450,
  storage: 8443,
} as const;

type Report = CheckReport & { readonly image: string };

suite('registry check against a real registry', {
  skip: hostReason() ?? false,
  timeout: 300_000,
}, () => {
  const stack = new AsyncDisposableStack();
  const printed: string[] = [];
  let hub: LabHost;
  let storage: LabHost;
  let node: LabHost;
  let front: RegistryFront;
  let behind: RegistryFront;
  let image: TestImage;
  let tools: DebianTools;
  let registry: LabRegistry;
  let certificates: LabCertificates;

  before(async () => {
    tools = await debianTools();
    const network = stack.use(await LabNetwork.create());
    [hub, storage, node] = [
      await network.addHost('hub'),
      await network.addHost('storage'),
      await network.addHost('node'),
    ];
    const recipe = { seed: 'registry', size_bytes: 2_000_000, index: true };
    image = await buildImage(recipe, cacheDir());
    registry = stack.use(await LabRegistry.start(hub, tools));
    await registry.push(image, 'team/app', 'v1');
    certificates = await labCertificates(hub.dir, [hub.address, storage.address]);
    const users = join(hub.dir, 'users');
    await writeFile(users, `puller:{PLAIN}${PASSWORD}\n`);
    const guarded = `auth_basic "lab"; auth_basic_user_file ${users};`;
    await startTokenRegistry(tools.registry);
    front = stack.use(
      await RegistryFront.start(hub, tools, {
        certificates,
        upstream: 'http://127.0.0.1:5000',
        servers: [
          { port: PORTS.tls },
          { port: PORTS.basic, all: guarded },
          { port: PORTS.client, all: 'ssl_verify_client on;' },
          { port: PORTS.no_ranges, blobs: 'proxy_set_header Range ""; max_ranges 0;' },
          {
            port: PORTS.redirect,
            all: guarded,
            blobs: `if ($http_authorization = "") { return 401; } return 307 https://${storage.address}:${PORTS.storage}$request_uri?signature=signed-by-hub;`,
          },
          {
            port: PORTS.limited,
            blobs: 'limit_req zone=slow; limit_req_status 429; add_header Retry-After 7 always;',
          },
          { port: PORTS.tokens, upstream: 'http://127.0.0.1:5001' },
          { port: PORTS.token_server, upstream: 'http://127.0.0.1:5002' },
        ],
      }),
    );
    behind = stack.use(
      await RegistryFront.start(storage, tools, {
        certificates,
        upstream: `http://${registry.address}`,
        servers: [{ port: PORTS.storage, all: 'ssl_verify_client optional;' }],
      }),
    );
  });

  after(async () => {
    await stack.disposeAsync();
    assert.deepEqual(await leftBehind(), NOTHING_LEFT);
  });

  /** A second registry over the same images that takes nothing but tokens of the token server. */
  async function startTokenRegistry(program: string): Promise<void> {
    const realm = `https://${hub.address}:${PORTS.token_server}/token`;
    const { cert, key } = certificates.server;
    const config = join(hub.dir, 'token-registry.yml');
    await writeFile(
      config,
      `version: 0.1
log: {level: warn, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: "${join(hub.dir, 'registry')}"}}
http: {addr: "127.0.0.1:5001"}
auth: {token: {realm: "${realm}", service: "lab", issuer: "lab issuer", rootcertbundle: "${certificates.ca}"}}
`,
    );
    const env = { OTEL_TRACES_EXPORTER: 'none' };
    const registry = await hub.spawn('token-registry', [program, 'serve', config], { env });
    const argv = [...NODE, TOKEN_SERVER, '5002', 'lab issuer', key, cert, `puller:${PASSWORD}`];
    const tokens = await hub.spawn('token-server', argv);
    const accepts = (port: number) => async () => {
      const probe = ['bash', '-c', `exec 3<>/dev/tcp/127.0.0.1/${port}`];
      return (await hub.tryRun(probe)).code === 0;
    };
    await registry.ready(accepts(5001), { deadline_ms: 10_000 });
    await tokens.ready(accepts(5002), { deadline_ms: 10_000 });
  }

  /** Runs the command on the node with a hosts.toml for this port, and keeps what it printed. */
  async function check(
    port: number,
    options: { toml?: string; login?: boolean; args?: readonly string[] } = {},
  ): Promise<CommandResult & { readonly report: Report }> {
    const { toml = '', login = false, args = [] } = options;
    const registry = `${hub.address}:${port}`;
    const name = `${hub.address}_${port}_`;
    const certs = await node.directory(`certs/${name}`);
    const ca = `ca = "${certificates.ca}"\n`;
    await writeFile(
      join(certs, 'hosts.toml'),
      `server = "https://${registry}"\n${toml.includes('ca =') ? '' : ca}${toml}`,
    );
    const auths = login ? { [registry]: { auth: BASIC } } : {};
    const credentials = join(node.dir, 'credentials.json');
    await writeFile(credentials, JSON.stringify({ auths }));
    const config = join(node.dir, 'layerswarm.toml');
    await writeFile(
      config,
      `[registry]\ncerts_directories = ["${node.dir}/certs"]\ncredential_files = ["${credentials}"]\n`,
    );
    const command = [...NODE, MAIN, 'registry', 'check', '--config', config];
    const image_name = `${registry}/team/app:v1`;
    const text = await node.tryRun([...command, ...args, image_name]);
    const result = await node.tryRun([...command, ...args, '--json', image_name]);
    printed.push(text.stdout, text.stderr, result.stdout, result.stderr);
    assert.equal(result.stderr, '');
    return { ...result, report: JSON.parse(result.stdout) as Report };
  }

  async function seenBy(server: RegistryFront): Promise<string[]> {
    return (await readFile(server.log, 'utf8')).trim().split('\n');
  }

  test('an own CA: the image is found, its first layer read by Range, and all of it on one connection', async () => {
    const { code, report } = await check(PORTS.tls);
    assert.equal(code, 0, JSON.stringify(report.failure));
    assert.equal(report.manifest?.digest, image.target.digest);
    assert.equal(report.layer?.digest, image.layers[0]?.digest);
    assert.equal(report.range?.supported, true);
    assert.equal(report.range.redirected_to, undefined);
    const seen = (await seenBy(front)).filter((line) => line.startsWith(`${PORTS.tls}|`));
    const last = seen.slice(-3).map((line) => line.split('|'));
    assert.deepEqual(
      last.map((fields) => fields[2]),
      ['200', '200', '206'],
    );
    assert.equal(new Set(last.map((fields) => fields.at(-1))).size, 1);
  });

  test('without the CA there is no TLS, and the sentence names where to put it', async () => {
    const { code, report } = await check(PORTS.tls, { toml: 'ca = []' });
    assert.equal(code, 80);
    assert.match(report.failure?.message ?? '', /no TLS with it .* under "ca" in hosts\.toml/);
  });

  test('skip_verify does without it', async () => {
    const { code } = await check(PORTS.tls, { toml: 'ca = []\nskip_verify = true' });
    assert.equal(code, 0);
  });

  test('basic authentication: the credential is shown by its name', async () => {
    const refused = await check(PORTS.basic);
    assert.equal(refused.code, 77);
    const { code, report } = await check(PORTS.basic, { login: true });
    assert.equal(code, 0, JSON.stringify(report.failure));
    assert.match(report.range?.credential ?? '', /^auths\["[\d.:]+"\] of .*credentials\.json$/);
  });

  test('a token server: the password goes there, and the registry sees tokens alone', async () => {
    const refused = await check(PORTS.tokens);
    assert.equal(refused.code, 77);
    const { code, report } = await check(PORTS.tokens, { login: true });
    assert.equal(code, 0, JSON.stringify(report.failure));
    assert.equal(report.range?.supported, true);
    const lines = await seenBy(front);
    const of = (port: number) => lines.filter((line) => line.startsWith(`${port}|`));
    assert.ok(of(PORTS.tokens).some((line) => line.includes('|Bearer ')));
    assert.ok(of(PORTS.tokens).every((line) => !line.includes('Basic ')));
    assert.ok(of(PORTS.token_server).some((line) => line.includes(`|Basic ${BASIC}|`)));
    for (const line of lines) {
      const token = /\|Bearer ([^|]+)\|/.exec(line)?.[1];
      if (token !== undefined) SECRETS.push(token);
    }
  });

  test('a client certificate is shown where one is asked for', async () => {
    const refused = await check(PORTS.client);
    assert.notEqual(refused.code, 0);
    const { cert, key } = certificates.client;
    const { code, report } = await check(PORTS.client, {
      toml: `client = [["${cert}", "${key}"]]`,
    });
    assert.equal(code, 0, JSON.stringify(report.failure));
    assert.ok((await seenBy(front)).at(-1)?.includes('|CN=lab client|'));
  });

  test('a server that ignores Range is named as one', async () => {
    const { code, report } = await check(PORTS.no_ranges);
    assert.equal(code, 0, JSON.stringify(report.failure));
    assert.equal(report.range?.supported, false);
  });

  test('a redirect to another host: no credentials, no headers of hosts.toml, no client certificate there', async () => {
    const { cert, key } = certificates.client;
    const toml = `header = {X-Lab = "${HEADER}"}\nclient = [["${cert}", "${key}"]]`;
    const { code, report } = await check(PORTS.redirect, { login: true, toml });
    assert.equal(code, 0, JSON.stringify(report.failure));
    assert.equal(report.range?.redirected_to, `https://${storage.address}:${PORTS.storage}`);
    assert.ok((await seenBy(front)).some((line) => line.includes(`|Basic ${BASIC}|${HEADER}|`)));
    const seen = await seenBy(behind);
    assert.ok(seen.length > 0);
    for (const line of seen) {
      const [, request, status, authorization, header, cookie, range, subject] = line.split('|');
      assert.match(request ?? '', /signature=signed-by-hub/);
      assert.deepEqual([status, authorization, header, cookie], ['206', '-', '-', '-']);
      assert.equal(range, 'bytes=0-65535');
      assert.equal(subject, '-');
    }
    SECRETS.push('signed-by-hub');
  });

  test('a rate limit: busy, with the time the server named', async () => {
    await check(PORTS.limited);
    const { code, report } = await check(PORTS.limited);
    assert.equal(code, 69);
    assert.equal(report.failure?.code, 'unavailable');
    assert.match(report.failure.message, /answers 429 .* again in 7 s/);
  });

  test('a mirror that is down is passed over, and told', async () => {
    const mirror = `https://${storage.address}:9`;
    const { code, report } = await check(PORTS.tls, { toml: `[host."${mirror}"]` });
    assert.equal(code, 0, JSON.stringify(report.failure));
    assert.deepEqual(
      report.endpoints.map(({ url }) => url),
      [`${mirror}/v2`, `https://${hub.address}:${PORTS.tls}/v2`],
    );
    assert.equal(report.failed[0]?.code, 'unavailable');
  });

  test('the registry alone, plain on its port: TLS is not given up by itself', async () => {
    const { code, report } = await check(5000, { toml: 'ca = []' });
    assert.equal(code, 80);
    assert.match(report.failure?.message ?? '', /does not speak TLS/);
  });

  for (const line of ['1.7', '2.1'] as const satisfies readonly ContainerdLine[]) {
    test(`${line}: a digest is looked for where containerd's label says, with the port and the way that its hosts.toml tells`, async () => {
      const options = { line, registry: registry.address };
      await using containerd = await LabContainerd.start(node, tools, options);
      await containerd.pull(`${registry.address}/team/app:v1`);
      const config = join(node.dir, 'bare.toml');
      await writeFile(config, '[registry]\ncerts_directories = []\ncredential_files = []\n');
      const files = ['--config', config];
      const command = [...NODE, MAIN, 'registry', 'check', '--json', ...files];
      const { code, stdout } = await node.tryRun([...command, image.manifest.digest]);
      const report = JSON.parse(stdout) as Report;
      assert.equal(code, 0, stdout);
      assert.deepEqual(report.origins, [{ registry: registry.address, repository: 'team/app' }]);
      assert.match(report.endpoints[0]?.told_by ?? '', /certs\/[\d.:_]+\/hosts\.toml$/);
      assert.equal(report.layer?.digest, image.layers[0]?.digest);
    });
  }

  test('nothing that was printed holds a secret', () => {
    assert.ok(printed.length > 40 && SECRETS.length > 4);
    for (const secret of SECRETS) {
      assert.ok(!printed.some((text) => text.includes(secret)), `${secret} was printed`);
    }
  });
});
