// containerd goes back to its own content store while the daemon runs on: the daemon notices, and it notices the return. An idle containerd
// that is wired, whatever else it writes into its database, is never taken for one that is not.
import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import type { ContainerdLine } from './lab/debian-packages.ts';
import { pause } from './lab/residue.ts';
import { LITTLE, nodeOfEach, push, suiteLab } from './suite-lab.ts';
import { hostReason } from './swarm-lab.ts';
import type { SwarmLab, SwarmNode } from './swarm-lab.ts';
import { untilTrue } from './wait.ts';

const skip = hostReason() ?? false;
const LINES = ['1.6', '1.7', '2.1'] as const satisfies readonly ContainerdLine[];
/** The daemon looks every 3 s, and believes the second look. */
const LOOKS_MS = 7_000;

suite('a containerd that no longer uses the daemon', { skip, timeout: 300_000 }, () => {
  let nodes: ReadonlyMap<ContainerdLine, SwarmNode>;
  let lab: SwarmLab;
  let ref: string;
  let other: string;

  suiteLab(async (made) => {
    lab = made;
    ({ ref } = await push(lab, LITTLE));
    const second = { seed: 'wiring', size_bytes: 200_000, layers: 2 };
    ({ ref: other } = await push(lab, second, 'other'));
    nodes = await nodeOfEach(lab, LINES, { config: { swarm: ['enabled = false'] } });
  });

  const stateOf = async (node: SwarmNode) => (await node.daemon.status()).containerd?.state;

  for (const line of LINES) {
    test(`${line}: noticed within seconds, said in status and metric, and over with the first call`, async () => {
      const node = nodes.get(line)!;
      const { containerd, daemon } = node;
      assert.equal(await stateOf(node), 'unknown');
      await containerd.pull(ref);
      const used = (await daemon.status()).containerd;
      assert.equal(used?.state, 'wired');
      assert.ok(used.calls > 0);
      if (line === '2.1') assert.equal(used.lastCallNamespace, 'default');
      // Everything that changes containerd's database without a word to the content store.
      await containerd.ctr(['namespaces', 'create', 'x']);
      await containerd.ctr(['leases', 'create', '--id', 'l']);
      await containerd.ctr(['snapshots', 'prepare', 's']);
      await containerd.ctr(['image', 'tag', ref, 'again:1']);
      await containerd.restart();
      await pause(LOOKS_MS);
      assert.equal(await stateOf(node), 'wired');

      containerd.useStore({ kind: 'builtin' });
      await containerd.restart();
      await containerd.pull(other);
      await untilTrue('not wired', async () => (await stateOf(node)) === 'not_wired');
      const seen = await daemon.status();
      assert.equal(seen.state, 'degraded');
      assert.deepEqual(
        seen.conditions.map(({ cause }) => cause),
        ['not_wired'],
      );
      assert.match(seen.containerd?.reason ?? '', /did not write .*another content store/);
      assert.equal(await daemon.metric('layerswarm_containerd_wiring', 'not_wired'), 1);
      assert.match((await daemon.cli(['status', '--socket', daemon.socket])).stdout, /not in use/);

      containerd.useStore({ kind: 'proxy', address: daemon.socket });
      await containerd.restart();
      await containerd.ctr(['image', 'ls']);
      assert.equal(await stateOf(node), 'wired');
      // What came past us is served all the same.
      assert.match(await containerd.runContainer(other), /\S/);
      await pause(LOOKS_MS);
      assert.equal(await stateOf(node), 'wired');
    });
  }
});
