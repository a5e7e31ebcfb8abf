import assert from 'node:assert/strict';
import { chmod, readFile, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { suite, test } from 'node:test';
import {
  assertRight,
  forgetImages,
  midPull,
  type Pushed,
  pullRight,
  rateFor,
} from './pull-bench.ts';
import { holderAndPuller, suiteLab } from './suite-lab.ts';
import { blobsOf, hostReason } from './swarm-lab.ts';
import type { SwarmLab, SwarmNode } from './swarm-lab.ts';
import { untilTrue } from './wait.ts';

const LINE = '1.7';
const skip = hostReason() ?? false;
const FAULTY = [
  process.execPath,
  '--disable-warning=ExperimentalWarning',
  resolve(import.meta.dirname, '../flow/faulty-daemon.ts'),
];
/** Holds a port until it is ended: `hold.js udp|tcp ADDRESS PORT`. */
const HOLD = `const [, kind, host, port] = process.argv;
const held = kind === 'udp' ? require('dgram').createSocket('udp4').bind(port, host) : require('net').createServer().listen(port, host);
held.on('listening', () => console.log('held'));`;

type Mend = (() => Promise<void>) | undefined;
type Fault = {
  readonly id: string;
  readonly cause: string;
  /** Breaks what the stopped daemon will find; resolves to what mends it while it runs, where that can be. */
  readonly cut: (node: SwarmNode) => Promise<Mend>;
};

const keyOf = (node: SwarmNode): string => join(node.host.dir, 'cluster.key');

const faults: readonly Fault[] = [
  {
    id: 'a cluster key that others may read',
    cause: 'cluster_key',
    cut: async (node) => {
      await chmod(keyOf(node), 0o644);
      return () => chmod(keyOf(node), 0o600);
    },
  },
  {
    id: 'a malformed cluster key',
    cause: 'cluster_key',
    cut: async (node) => {
      const key = await readFile(keyOf(node));
      await writeFile(keyOf(node), 'garbled\n');
      return () => writeFile(keyOf(node), key);
    },
  },
  {
    id: 'a swarm port that another program has (UDP)',
    cause: 'swarm_listen',
    cut: (node) => hold(node, 'udp', node.host.address, 7878),
  },
  {
    id: 'a swarm port that another program has (TCP)',
    cause: 'swarm_listen',
    cut: (node) => hold(node, 'tcp', node.host.address, 7878),
  },
  {
    id: 'a metrics port that another program has',
    cause: 'metrics_listen',
    cut: (node) => hold(node, 'tcp', '127.0.0.1', 9479),
  },
  {
    id: 'a swarm address of another host',
    cause: 'swarm_listen',
    cut: (node) => edit(node, (text) => text.replace(node.host.address, '192.0.2.1')),
  },
  {
    id: 'a typo in the configuration',
    cause: 'config',
    cut: (node) => edit(node, (text) => text.replace('listen_port', 'listen_prot')),
  },
  {
    id: 'a wrong value in the store section of the configuration',
    cause: 'config',
    cut: (node) =>
      edit(node, (text) => text.replace('disk_floor_bytes = 0', 'disk_floor_bytes = "none"')),
  },
  {
    id: 'a configuration that is no TOML',
    cause: 'config',
    cut: (node) => edit(node, (text) => text.replace('[swarm]', '[swarm')),
  },
];

suite('containerd beside a daemon that has only its store', { skip, timeout: 400_000 }, () => {
  let lab: SwarmLab;
  let app: Pushed;
  let small: Pushed;
  let a: SwarmNode;
  let b: SwarmNode;

  suiteLab(async (made) => {
    lab = made;
    const product = [...FAULTY, 'socket'];
    ({ app, small, a, b } = await holderAndPuller(lab, { line: LINE, product }));
  });

  for (const { id, cause, cut } of faults) {
    test(`an image is pulled and a container runs although there is ${id}`, async () => {
      await forgetImages(b);
      await b.daemon.stop();
      const before = await readFile(b.daemon.config, 'utf8');
      const mend = await cut(b);
      try {
        await b.daemon.restart();
        const { pid } = b.daemon;
        await untilTrue('the cause in the status', async () => {
          const { conditions, state } = await b.daemon.status();
          return state === 'degraded' && conditions[0]?.cause === cause;
        });
        await pullRight(b, small, 'ctr');
        assert.equal(await b.containerd.runContainer(small.ref), `${small.image.greeting}\n`);
        if (mend !== undefined) {
          await mend();
          await untilTrue(
            'nothing against it',
            async () => {
              return (await b.daemon.status()).conditions.length === 0;
            },
            { deadline_ms: 60_000 },
          );
          await lab.meshed(b, { peers: 1, holders: [a], blobs: blobsOf(app.image).length });
        }
        assert.equal(b.daemon.pid, pid);
        assert.equal(b.daemon.running, true);
      } finally {
        await mend?.();
        await writeFile(b.daemon.config, before);
      }
      await b.daemon.restart();
      await lab.meshed(b, { peers: 1, holders: [a], blobs: blobsOf(app.image).length });
    });
  }

  test('a fault in the swarm in the middle of a pull: the image is right, the swarm comes back, nothing restarts', async () => {
    await forgetImages(b);
    await lab.meshed(b, { peers: 1, holders: [a], blobs: blobsOf(app.image).length });
    await lab.registry.forget();
    const { pid } = b.daemon;
    await a.host.shape({ rate_bits: rateFor(app, 8) });
    try {
      const pull = b.containerd.pull(app.ref);
      pull.catch(() => undefined);
      await midPull(b, app);
      process.kill(pid, 'SIGUSR2');
      await untilTrue('the fault in the log', async () =>
        /swarm_failed/.test(await b.daemon.log()),
      );
      await pull;
    } finally {
      await a.host.shape({});
    }
    await assertRight(b, app, 'default');
    assert.equal(await b.containerd.runContainer(app.ref), `${app.image.greeting}\n`);
    assert.ok((await lab.registry.layerBytes(app.image)) > 0, 'the rest came from the registry');
    assert.equal(b.daemon.running, true);
    assert.equal((await b.daemon.status()).pid, pid);

    await lab.meshed(b, { peers: 1, holders: [a], blobs: blobsOf(app.image).length });
    await forgetImages(b);
    await lab.registry.forget();
    await pullRight(b, app, 'ctr');
    assert.equal(await lab.registry.layerBytes(app.image), 0, 'all of it came from the peer');
  });
});

/** Another program takes the port of the host. */
async function hold(
  { host }: SwarmNode,
  kind: 'udp' | 'tcp',
  address: string,
  port: number,
): Promise<Mend> {
  const argv = [process.execPath, '-e', HOLD, kind, address, String(port)];
  const holder = await host.spawn(`hold-${kind}-${port}`, argv);
  await untilTrue('the port is held', async () => /held/.test(await holder.tail()));
  return async () => {
    await holder.stop();
  };
}

async function edit(node: SwarmNode, change: (text: string) => string): Promise<undefined> {
  const text = await readFile(node.daemon.config, 'utf8');
  const changed = change(text);
  assert.notEqual(changed, text);
  await writeFile(node.daemon.config, changed);
  return undefined;
}
