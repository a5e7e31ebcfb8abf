import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseConfig } from '../../src/config/load.ts';
import type { DaemonView, DoctorModules } from '../../src/host/doctor/context.ts';
import type { Finding, Level } from '../../src/host/doctor/finding.ts';
import { FakeClock } from '../fakes/fake-clock.ts';

/** What a judging table says of one set of facts. */
export type Verdict = {
  readonly id: string;
  readonly level: Level;
  /** Must stand in the summary. */
  readonly says: RegExp;
  /** Must stand in one of the commands; left out, there is none. */
  readonly mend?: string;
};

/** True when a finding is what the table says; `problem` tells otherwise. */
export function problemOf(finding: Finding, verdict: Verdict): string | undefined {
  const { level, says, mend } = verdict;
  const shown = JSON.stringify(finding);
  if (finding.level !== level) return `${level} expected: ${shown}`;
  if (!says.test(finding.summary)) return `${String(says)} expected: ${shown}`;
  if (mend === undefined) return finding.mend.length === 0 ? undefined : `no mend: ${shown}`;
  return finding.mend.some((m) => m.includes(mend)) ? undefined : `"${mend}" expected: ${shown}`;
}

/** One test per row: what `judge` makes of the row's facts. */
export function judgeTable<F>(
  name: string,
  judge: (facts: F) => Finding,
  rows: readonly (Verdict & { readonly facts: F })[],
): void {
  for (const row of rows) {
    test(`${name}: ${row.id}`, () => assert.equal(problemOf(judge(row.facts), row), undefined));
  }
}

/** A daemon in good health, alone. */
export function healthyView(over: Partial<DaemonView> = {}): DaemonView {
  return {
    version: '9.8.7',
    state: 'connected',
    reason: '',
    pid: 42,
    uptimeSeconds: 100,
    swarm: { enabled: true, uptimeSeconds: 99, listenAddresses: [], peers: [], bootstrap: [] },
    conditions: [],
    blobs: { lostCount: 0, lost: [] },
    containerd: { state: 'wired', reason: 'containerd uses this daemon' },
    ...over,
  };
}

/** Modules for the runner; a test replaces what it is about. */
export function doctorModules(over: Partial<DoctorModules> = {}): DoctorModules {
  const file = '/etc/layerswarm/config.toml';
  return {
    clock: new FakeClock(),
    run: () => Promise.reject(new Error('no programs here')),
    config: { file, config: parseConfig('', file, {}), state: 'loaded', problems: [] },
    fetchStatus: async () => healthyView(),
    openBlobDoor: () => Promise.reject(new Error('no daemon here')),
    openDaemon: () => Promise.reject(new Error('no daemon here')),
    read_all: false,
    loadClusterKey: async () => undefined,
    ...over,
  };
}
