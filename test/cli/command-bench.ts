import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { type CommandModules, runCommand } from '../../src/cli/program.ts';
import type { ServiceConfig } from '../../src/config/service-config.ts';
import type { StatusResponse__Output } from '../../src/gen/layerswarm/control/v1/StatusResponse.ts';
import { FakeClock } from '../fakes/fake-clock.ts';

/** A status with one of everything. */
export function exampleStatus(state = 'connected'): StatusResponse__Output {
  return {
    version: '0.1.0',
    state,
    reason: '',
    uptimeSeconds: 93_784,
    pid: 42,
    residentMemoryBytes: 90 * 1024 ** 2,
    swarm: {
      enabled: true,
      peerId: '12D3KooWAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAself',
      zone: 'rack-1',
      listenAddresses: ['/ip4/10.0.0.1/udp/7878/quic-v1'],
      knownPeers: 3,
      connectedPeers: 1,
      holdingPeers: 1,
      servedPeers: 0,
      peers: [
        {
          peerId: '12D3KooWBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBpeer',
          address: '10.0.0.2:7878',
          transport: 'quic',
          zone: 'rack-2',
          state: 'connected',
          inventoryBlobs: 12,
          receivedBytes: 1024 ** 3,
          sentBytes: 512,
          receiveBytesPerSecond: 250 * 1024 ** 2,
        },
      ],
      bootstrap: [
        { address: 'node2:7878', state: 'connected', reason: '' },
        { address: 'node3:7878', state: 'waiting', reason: 'wrong_key' },
      ],
      bans: [{ peerId: 'short', reason: 'wrong_piece', remainingSeconds: 61 }],
      uptimeSeconds: 93_700,
    },
    blobs: {
      ownedCount: 12,
      ownedBytes: 3 * 1024 ** 3,
      cacheCount: 2,
      cacheBytes: 1000,
      cacheMaxBytes: 10 * 1024 ** 3,
      lostCount: 1,
      lost: [{ digest: `sha256:${'cd'.repeat(32)}`, sizeBytes: 300 }],
    },
    containerd: {
      state: 'wired',
      reason: 'containerd uses this daemon',
      calls: 7,
      lastCallMsAgo: 3_400,
      lastCallMethod: 'Info',
      lastCallNamespace: 'k8s.io',
    },
    traffic: {
      receivedFromPeersBytes: 1024 ** 3,
      writtenByContainerdBytes: 0,
      servedToPeersBytes: 512,
    },
    transfers: [
      {
        digest: `sha256:${'ab'.repeat(32)}`,
        sizeBytes: 200,
        receivedBytes: 50,
        state: 'fetching',
        ageMs: 2500,
        sources: [{ source: '12D3KooWBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBpeer', bytes: 50 }],
      },
    ],
    conditions: [],
  };
}

/** Runs command lines against a world that a test sets up. */
export function commandBench(t: TestContext, world: Partial<CommandModules> = {}) {
  const directory = mkdtempSync(join(tmpdir(), 'layerswarm-cli-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const printed = { out: '', err: '' };
  const daemons: ServiceConfig[] = [];
  const modules: CommandModules = {
    output: {
      out: (text) => void (printed.out += text),
      err: (text) => void (printed.err += text),
      terminal: false,
    },
    clock: new FakeClock(),
    version: '9.8.7',
    environment: {},
    runDaemon: async (config) => daemons.push(config) - 1,
    generateClusterKey: async () => 'ab'.repeat(32),
    fetchStatus: async () => exampleStatus(),
    interrupted: () => new AbortController().signal,
    doctor: () => Promise.reject(new Error('this test has no host to look at')),
    registry: () => Promise.reject(new Error('this test has no registry to ask')),
    repair: () => Promise.reject(new Error('this test has no host to mend')),
    host: {
      is_root: false,
      confirm: undefined,
      wiring: () => Promise.reject(new Error('no host in this test')),
    },
    ...world,
  };
  const run = async (...args: string[]) => {
    printed.out = printed.err = '';
    const code = await runCommand(modules, args);
    return { code, ...printed };
  };
  return { run, directory, daemons, printed };
}
