import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { chmod, readFile, rm, writeFile } from 'node:fs/promises';
import { type AddressInfo, createServer } from 'node:net';
import { test } from 'node:test';
import { ContentCalls } from '../bench/content-calls.ts';
import { CLUSTER_KEY, DaemonHome, layerswarm } from './daemon-process.ts';

const RAISED = 'degraded: containerd is served, something else is not';
const CLEARED = 'no longer degraded by this cause';

type Status = {
  readonly state: string;
  readonly reason: string;
  readonly conditions: readonly {
    readonly cause: string;
    readonly what: string;
    readonly mend: readonly string[];
  }[];
};

type Fault = {
  readonly id: string;
  readonly cause: string;
  readonly what: RegExp;
  readonly mend: RegExp;
  /** Breaks the home before the start. */
  readonly cut: (home: DaemonHome, scope: AsyncDisposableStack) => Promise<Mended>;
};
/** What mends it while the daemon runs; undefined where only another configuration and a restart do. */
type Mended = (() => Promise<void>) | undefined;

/** A port of loopback that a program has; ended by what is returned, or with the test. */
async function taken(
  scope: AsyncDisposableStack,
  ...kinds: readonly ('udp' | 'tcp')[]
): Promise<{ readonly port: number; readonly end: () => Promise<void> }> {
  const held = new AsyncDisposableStack();
  scope.use(held);
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  if (kinds.includes('tcp'))
    held.defer(async () => {
      await once(server.close(), 'close');
    });
  else await once(server.close(), 'close');
  if (kinds.includes('udp')) {
    const socket = createSocket('udp4').bind(port, '127.0.0.1');
    await once(socket, 'listening');
    held.defer(async () => {
      await once(socket.close(), 'close');
    });
  }
  return { port, end: () => held.disposeAsync() };
}

const keyFault = (
  id: string,
  cut: (home: DaemonHome) => Promise<void>,
  { what, mend }: { what: RegExp; mend: RegExp },
): Fault => ({
  id,
  cause: 'cluster_key',
  what,
  mend,
  cut: async (home) => {
    await cut(home);
    return async () => {
      await writeFile(home.key, `${CLUSTER_KEY}\n`, { mode: 0o600 });
      await chmod(home.key, 0o600);
    };
  },
});

const portFault = (kinds: readonly ('udp' | 'tcp')[]): Fault => ({
  id: `the swarm port is in use (${kinds.join(' and ')})`,
  cause: 'swarm_listen',
  what: new RegExp(`${kinds[0]!.toUpperCase()} 127\\.0\\.0\\.1 \\(EADDRINUSE\\)`),
  mend: /ss -lntup/,
  cut: async (home, scope) => {
    const { port, end } = await taken(scope, ...kinds);
    await home.configure({ swarm: `listen_port = ${port}` });
    return end;
  },
});

const configFault = (id: string, damage: (text: string) => string, what: RegExp): Fault => ({
  id,
  cause: 'config',
  what,
  mend: /layerswarm config check .*config\.toml/,
  cut: async (home) => {
    await writeFile(home.config, damage(await readFile(home.config, 'utf8')));
    return undefined;
  },
});

const faults: readonly Fault[] = [
  keyFault('the cluster key may be read by others', (home) => chmod(home.key, 0o644), {
    what: /may be read by others \(mode 644\)/,
    mend: /^chmod 600 .*cluster\.key$/,
  }),
  keyFault('the cluster key is malformed', (home) => writeFile(home.key, 'too short\n'), {
    what: /holds a line that is neither hex nor base64/,
    mend: /--cluster-key FILE/,
  }),
  keyFault('the cluster key is empty', (home) => writeFile(home.key, ''), {
    what: /holds 0 keys/,
    mend: /--cluster-key FILE/,
  }),
  keyFault('there is no cluster key', (home) => rm(home.key), {
    what: /no cluster key at/,
    mend: /--cluster-key FILE/,
  }),
  portFault(['udp']),
  portFault(['tcp']),
  portFault(['udp', 'tcp']),
  {
    id: 'the swarm listens on an address this host does not have',
    cause: 'swarm_listen',
    what: /192\.0\.2\.1 \(EADDRNOTAVAIL\)/,
    mend: /^ip -brief address$/,
    cut: async (home) => {
      await home.configure({ swarm: 'listen_addresses = ["192.0.2.1"]\nlisten_port = 7878' });
      return undefined;
    },
  },
  {
    id: 'the metrics port is in use',
    cause: 'metrics_listen',
    what: /no metrics on 127\.0\.0\.1:\d+: the address is in use/,
    mend: /^ss -lntp/,
    cut: async (home, scope) => {
      const { port, end } = await taken(scope, 'tcp');
      await home.configure({ metrics: `listen = "127.0.0.1:${port}"` });
      return end;
    },
  },
  configFault(
    'a mistyped key',
    (text) => text.replace('listen_port', 'listen_prot'),
    /\[swarm\] \(off\); unknown key \[swarm\] listen_prot/,
  ),
  configFault(
    'a wrong value',
    (text) => `${text}[pull]\nlinger_ms = "soon"\n`,
    /\[pull\] \(defaults\); \[pull\] linger_ms = "soon"/,
  ),
  configFault('broken TOML', (text) => text.replace('"info"', 'info'), /\[log\] \(defaults\)/),
];

for (const { id, cause, what, mend, cut } of faults) {
  test(`containerd is served although ${id}; every door names it, and mending it needs no restart where that can be`, {
    timeout: 60_000,
  }, async () => {
    await using scope = new AsyncDisposableStack();
    await using home = await DaemonHome.create();
    const heal = await cut(home, scope);
    await using daemon = home.start();
    const { cause: named } = await daemon.said(RAISED);
    assert.equal(named, cause);
    await assertServes(home);
    const { code, out } = await layerswarm('status', '--config', home.config, '--json');
    const status = JSON.parse(out) as Status;
    assert.deepEqual([code, status.state], [1, 'degraded']);
    const [condition, ...more] = status.conditions;
    assert.deepEqual([condition?.cause, more], [cause, []]);
    assert.match(condition?.what ?? '', what);
    assert.equal(status.reason, condition?.what);
    assert.ok(
      condition?.mend.some((line) => mend.test(line)),
      condition?.mend.join('\n'),
    );
    const told = await layerswarm('status', '--config', home.config);
    for (const line of condition?.mend ?? [])
      assert.ok(told.out.includes(`mend: ${line}`), told.out);
    const doctor = await layerswarm('doctor', '--config', home.config, '--only', 'degraded');
    assert.equal(doctor.code, 2, doctor.out);
    assert.ok(doctor.out.includes(`${cause}: `), doctor.out);
    if (cause !== 'metrics_listen' && id !== 'broken TOML') {
      const url = await daemon.endpoint();
      const ready = await fetch(`${url}/readyz`);
      assert.deepEqual([ready.status, await ready.text()], [200, `degraded: ${status.reason}\n`]);
      assert.deepEqual(await degradedBy(url), [cause]);
    }
    if (heal !== undefined) {
      const cleared = daemon.said(CLEARED);
      await heal();
      assert.equal((await cleared)['cause'], cause);
      const { out: after } = await layerswarm('status', '--config', home.config, '--json');
      assert.deepEqual((JSON.parse(after) as Status).conditions, []);
      assert.equal((JSON.parse(after) as Status).state, 'alone');
    }
    assert.deepEqual(
      daemon.complaints.map(({ msg }) => msg),
      [RAISED],
      'one line, however often it was tried',
    );
    daemon.signal('SIGTERM');
    assert.deepEqual(await daemon.ended, { code: 0, signal: null });
  });
}

test('a configuration that served goes on serving when somebody breaks the file, also its store', {
  timeout: 60_000,
}, async () => {
  await using home = await DaemonHome.create({ swarm: 'zone = "rack-7"' });
  {
    await using daemon = home.start();
    await daemon.said('daemon started');
    daemon.signal('SIGTERM');
    assert.equal((await daemon.ended).code, 0);
  }
  const text = await readFile(home.config, 'utf8');
  await writeFile(home.config, text.replace('content_directory', 'content_dir'));
  await using daemon = home.start();
  await daemon.said('daemon started');
  await assertServes(home);
  const { out } = await layerswarm('status', '--config', home.config, '--json');
  const status = JSON.parse(out) as Status & { readonly swarm: { readonly zone: string } };
  assert.equal(status.swarm.zone, 'rack-7');
  assert.match(
    status.reason,
    /the last configuration that served is in force; unknown key \[store\] content_dir/,
  );
});

test('a socket of the swarm that could be had is given back when another could not', {
  timeout: 60_000,
}, async () => {
  await using scope = new AsyncDisposableStack();
  for (const [held, free] of [
    ['udp', 'tcp'],
    ['tcp', 'udp'],
  ] as const) {
    await using home = await DaemonHome.create();
    const { port } = await taken(scope, held);
    await home.configure({ swarm: `listen_port = ${port}` });
    await using daemon = home.start();
    await daemon.said(RAISED);
    // Another try may have it for a moment; a socket that is left never comes free, and the test's time ends.
    while (!(await bound(free, port)));
  }
});

/** True when the port could be had. */
async function bound(kind: 'udp' | 'tcp', port: number): Promise<boolean> {
  const other =
    kind === 'tcp'
      ? createServer().listen(port, '127.0.0.1')
      : createSocket('udp4').bind(port, '127.0.0.1');
  try {
    await once(other, 'listening');
    await once(other.close(), 'close');
    return true;
  } catch {
    return false;
  }
}

/** Writes a blob as containerd does and looks it up: what creating a container and pulling need. */
async function assertServes(home: DaemonHome): Promise<void> {
  const bytes = Buffer.from('served all the same');
  const digest = `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
  using client = new ContentCalls(home.socket);
  const write = client.write();
  await write.ask({ action: 'STAT', ref: 'a-plain-ref', total: bytes.length });
  await write.ask({ action: 'WRITE', data: bytes, offset: 0, total: bytes.length });
  await write.ask({
    action: 'COMMIT',
    offset: bytes.length,
    total: bytes.length,
    expected: digest,
  });
  await client.unary('Info', { digest });
}

/** The causes whose metric is 1. */
async function degradedBy(url: string): Promise<string[]> {
  const text = await (await fetch(`${url}/metrics`)).text();
  const series = [...text.matchAll(/^layerswarm_degraded\{cause="(\w+)"\} ([01])$/gm)];
  assert.ok(series.length >= 5, 'every cause shows from the start');
  return series.filter((s) => s[2] === '1').map((s) => s[1]!);
}
