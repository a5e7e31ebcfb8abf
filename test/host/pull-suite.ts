// All pull scenarios of one containerd line, on one bench, for both clients.
import assert from 'node:assert/strict';
import { after, before, suite } from 'node:test';
import { faultScenarios } from './fault-scenarios.ts';
import type { ContainerdLine } from './lab/debian-packages.ts';
import { goReason } from './lab/go-programs.ts';
import { CLIENTS, PullBench } from './pull-bench.ts';
import type { Client } from './pull-bench.ts';
import { crictlScenarios } from './crictl-scenarios.ts';
import { linkScenarios } from './link-scenarios.ts';
import { pullScenarios } from './pull-scenarios.ts';
import { swarmScenarios } from './swarm-scenarios.ts';
import { NOTHING_LEFT, hostReason, leftBehind } from './swarm-lab.ts';

/** What peers do is the same beside every containerd: one line for each client, an old one and the newest. */
const SWARM_ROWS: Readonly<Record<Client, ContainerdLine>> = { ctr: '1.7', cri: '2.3' };
/** And what links do, beside one. */
const LINK_ROWS: ContainerdLine = '2.1';

/** Registers the suite; skipped with its reason on a machine that cannot run it. */
export function pullSuite(line: ContainerdLine): void {
  const skip = hostReason() ?? goReason(line) ?? false;
  suite(`containerd ${line} with layerswarm as its content store`, {
    skip,
    timeout: 1_200_000,
  }, () => {
    let made: PullBench | undefined;
    const bench = (): PullBench => {
      assert.ok(made !== undefined);
      return made;
    };

    before(async () => {
      made = await PullBench.create(line);
    });

    after(async () => {
      await made?.[Symbol.asyncDispose]();
      assert.deepEqual(await leftBehind(), NOTHING_LEFT);
    });

    for (const client of CLIENTS) {
      pullScenarios(client, bench);
      faultScenarios(client, bench);
      if (SWARM_ROWS[client] === line) swarmScenarios(client, bench);
    }
    crictlScenarios(bench);
    if (line === LINK_ROWS) linkScenarios(bench);
  });
}
