// Pulls from several peers of which one dies or lies. What peers do is the same beside every containerd.
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { test } from 'node:test';
import {
  assertHonestDisk,
  assertRight,
  midPull,
  pullRight,
  rateFor,
  spaceOf,
} from './pull-bench.ts';
import type { Client, PullBench, Pushed } from './pull-bench.ts';
import type { SwarmNode } from './swarm-lab.ts';
import { untilTrue } from './wait.ts';

const LIAR = resolve(import.meta.dirname, 'liar.ts');

let extra_hosts = 0;

/** Registers the scenarios of one client; they use one bench one after the other. */
export function swarmScenarios(client: Client, bench: () => PullBench): void {
  test(`${client}: one of two holders dies in mid layer and the other gives the rest, not the registry`, async () => {
    const { lab, a, b, app } = bench();
    const c = await lab.addNode(`c${++extra_hosts}`, { seeds: [app.image] });
    try {
      await bench().readyWith(c);
      await a.host.shape({ rate_bits: rateFor(app, 8) });
      await c.host.shape({ rate_bits: rateFor(app, 8) });
      const pull = b.containerd.pull(app.ref, { client });
      pull.catch(() => undefined);
      await midPull(b, app);
      await a.daemon.crash();
      await c.host.shape({});
      await pull;
      await assertRight(b, app, spaceOf(client));
      await bench().noLayerGets(app);
    } finally {
      await c.daemon.stop();
      await a.daemon.reborn();
    }
  });

  for (const mode of ['piece', 'list'] as const) {
    test(`${client}: a peer that lies about its ${mode}s is banned and the pull is right`, async () => {
      const { a, b, app } = bench();
      const liar = await liarNode(bench(), mode, app);
      try {
        await bench().readyWith(liar);
        // A quick holder could give everything before the liar is asked for anything.
        await a.host.shape({ rate_bits: rateFor(app, 4) });
        await pullRight(b, app, client);
        await bench().noLayerGets(app);
        await banned(b, liar);
      } finally {
        await liar.daemon.stop();
      }
    });
  }

  test(`${client}: when only a liar has the image the registry gives it`, async () => {
    const { lab, b, solo } = bench();
    const liar = await liarNode(bench(), 'list', solo);
    try {
      await bench().readyWith(liar);
      await pullRight(b, solo, client);
      assert.notEqual((await lab.registry.layerGets(solo.image)).length, 0);
      await banned(b, liar);
    } finally {
      await liar.daemon.stop();
    }
  });
}

/** A host whose only program hands out wrong bytes of `pushed`. */
async function liarNode(
  { lab }: PullBench,
  mode: 'piece' | 'list',
  pushed: Pushed,
): Promise<SwarmNode> {
  return lab.addNode(`liar${++extra_hosts}`, {
    seeds: [pushed.image],
    program: [process.execPath, '--disable-warning=ExperimentalWarning', LIAR, mode],
  });
}

/** `status --json` of B shows a ban of this peer, and nothing wrong is among its blobs. */
async function banned(b: SwarmNode, liar: SwarmNode): Promise<void> {
  const id = await readFile(join(liar.host.dir, 'up'), 'utf8');
  await untilTrue('a ban in status --json', async () => {
    const { swarm } = (await b.daemon.statusJson()) as {
      readonly swarm: { readonly bans: readonly { readonly peer_id: string }[] };
    };
    return swarm.bans.some((ban) => ban.peer_id === id);
  });
  await assertHonestDisk(b);
}
