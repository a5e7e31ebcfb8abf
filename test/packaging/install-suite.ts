// The life of an installation on one suite, in its order: install, setup, pulls, upkeep, teardown, purge.
import assert from 'node:assert/strict';
import { after, before, suite } from 'node:test';
import { NOTHING_LEFT, hostReason, leftBehind } from '../host/swarm-lab.ts';
import { InstallBench } from './install-bench.ts';
import type { BootedSuite } from './lab/base-tree.ts';
import { removalScenarios } from './removal-scenarios.ts';
import { setupScenarios } from './setup-scenarios.ts';
import { upkeepScenarios } from './upkeep-scenarios.ts';

/** Registers the suite; its tests build upon each other. Skipped with its reason on a machine that cannot run it. */
export function installSuite(name: BootedSuite): void {
  const skip = hostReason() ?? false;
  suite(`the deb on booted ${name}`, { skip, timeout: 900_000 }, () => {
    let made: InstallBench | undefined;
    const bench = (): InstallBench => {
      assert.ok(made !== undefined);
      return made;
    };

    before(async () => {
      made = await InstallBench.create(name);
    });

    after(async () => {
      await made?.[Symbol.asyncDispose]();
      assert.deepEqual(await leftBehind(), NOTHING_LEFT);
    });

    setupScenarios(bench);
    upkeepScenarios(bench);
    removalScenarios(bench);
  });
}
