import assert from 'node:assert/strict';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { DaemonError } from '../../src/base/errors.ts';
import type { Digest } from '../../src/oci/digest.ts';
import { Conditions } from '../../src/ops/conditions.ts';
import { PrometheusRegister } from '../../src/ops/register.ts';
import type { PieceSource } from '../../src/piece/source.ts';
import { type RunningSwarm, type StartSwarm, SwarmSupervisor } from '../../src/swarm-supervisor.ts';
import { parseConfig } from '../../src/config/load.ts';
import { HostStanding } from '../../src/piece/host-standing.ts';
import { swarmConfig } from '../../src/daemon-swarm-config.ts';
import type { SwarmModules } from '../../src/swarm/swarm.ts';
import { FakeClock, settle } from '../fakes/fake-clock.ts';
import { MemoryLogger } from '../fakes/memory-logger.ts';
import { MemoryBlobs } from '../swarm/swarm-host.ts';

const DIGEST = `sha256:${'ab'.repeat(32)}` as Digest;

/** A swarm that does what a test tells it to. */
class ScriptedSwarm implements RunningSwarm {
  readonly end = Promise.withResolvers<undefined>();
  sources: readonly PieceSource[] = [];
  closed = 0;
  close: () => Promise<void> = () => Promise.resolve();
  find = (): readonly PieceSource[] => this.sources;

  async ended(): Promise<void> {
    await this.end.promise;
  }
  get done(): Promise<void> {
    return this.ended();
  }
  status(): ReturnType<RunningSwarm['status']> {
    return {
      id: 'x',
      state: 'alone',
      listen: [],
      peers: [],
      bans: [],
      addresses: [],
      announced_blobs: 0,
      uploads: 0,
    };
  }
  onPeer(): () => void {
    return () => undefined;
  }
  setDiskFull(): void {
    // Nobody asks.
  }
  async [Symbol.asyncDispose](): Promise<void> {
    this.closed += 1;
    await this.close();
  }
}

/** A supervisor over scripted starts, with a real key file and a clock of the test. */
function bench(t: TestContext, starts: StartSwarm) {
  const directory = mkdtempSync(join(tmpdir(), 'layerswarm-roof-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const key_file = join(directory, 'cluster.key');
  writeFileSync(key_file, 'a key', { mode: 0o600 });
  const clock = new FakeClock();
  const logger = new MemoryLogger();
  const register = new PrometheusRegister();
  const conditions = new Conditions({ clock, logger, register });
  const blobs = new MemoryBlobs();
  const stop = new AbortController();
  const supervisor = new SwarmSupervisor(
    { store: blobs, clock, logger, register, conditions, start: starts, random: () => 1 },
    {
      ...swarmConfig(parseConfig('', 'defaults', {}), { host_name: '', software_version: '' }),
      state_dir: directory,
      cluster_key_file: key_file,
      port: 7878,
    },
  );
  const run = () => supervisor.run(stop.signal, () => undefined);
  t.after(() => stop.abort());
  const causes = () => conditions.list().map(({ cause }) => cause);
  /** Files are looked at for real, which takes turns of the loop. */
  const advance = async (ms: number): Promise<void> => {
    for (let at = 0; at < ms; at += 500) {
      await clock.advance(500);
      await stat(directory);
      await settle();
    }
  };
  /** Time goes on until the condition holds, at most so long. */
  const within = async (ms: number, condition: () => boolean): Promise<void> => {
    for (let at = 0; at < ms && !condition(); at += 500) await advance(500);
  };
  return {
    supervisor,
    run,
    clock,
    logger,
    conditions,
    causes,
    advance,
    within,
    key_file,
    blobs,
  };
}

test('a start that fails is tried again with growing pauses, and told once', async (t) => {
  const at_ms: number[] = [];
  const { run, clock, causes, advance, logger, supervisor } = bench(t, async () => {
    at_ms.push(clock.now_ms());
    throw new DaemonError('config_invalid', 'The port is taken.', { listen_errno: 'EADDRINUSE' });
  });
  void run();
  await supervisor.tried;
  await advance(200_000);
  assert.deepEqual(causes(), ['swarm_listen']);
  const pauses = at_ms.slice(1).map((ms, i) => ms - at_ms[i]!);
  // The key file is looked at for real meanwhile, so that a pause may come out longer on this clock, and never shorter.
  const least = [1, 2, 4, 8, 16, 30, 30, 30, 30, 30];
  assert.ok(pauses.length >= 6, pauses.join());
  assert.ok(
    pauses.every((ms, i) => ms >= (least[i] ?? 30) * 1000),
    pauses.join(),
  );
  assert.equal(logger.lines.length, 1);
});

test('a missing key costs no start; a key that appears begins one within seconds', async (t) => {
  let starts = 0;
  const { run, causes, advance, within, key_file, supervisor } = bench(t, async () => {
    starts += 1;
    return new ScriptedSwarm();
  });
  rmSync(key_file);
  void run();
  await supervisor.tried;
  await advance(60_000);
  assert.deepEqual([starts, causes()], [0, ['cluster_key']]);
  writeFileSync(key_file, 'a key');
  await within(6_000, () => causes().length === 0);
  assert.deepEqual([starts, causes()], [1, []]);
  assert.equal(supervisor.status()?.state, 'alone');
});

test('a bad key that is mended begins a start within seconds, however long it was bad', async (t) => {
  let is_bad = true;
  const { run, within, advance, key_file, causes } = bench(t, async (_modules, config) => {
    if (!is_bad) return new ScriptedSwarm();
    throw new DaemonError('config_invalid', 'bad', { path: config.cluster_key_file });
  });
  void run();
  await advance(100_000);
  assert.deepEqual(causes(), ['cluster_key']);
  is_bad = false;
  writeFileSync(key_file, 'another key');
  await within(6_000, () => causes().length === 0);
  assert.deepEqual(causes(), []);
});

test('a key file that changes under a running swarm is told with its cure, until it is as before, and ends nothing', async (t) => {
  const swarms: ScriptedSwarm[] = [];
  const { run, within, advance, key_file, conditions, causes, supervisor } = bench(t, async () => {
    swarms.push(new ScriptedSwarm());
    return swarms.at(-1)!;
  });
  void run();
  await supervisor.tried;
  await advance(1_000);
  // Written anew by whoever looks after the host, with the same content.
  writeFileSync(key_file, 'a key');
  await advance(20_000);
  assert.deepEqual(causes(), []);
  const told = async (work: () => void, what: RegExp, mend: RegExp) => {
    work();
    await within(6_000, () => what.test(conditions.list()[0]?.what ?? ''));
    assert.match(conditions.list()[0]?.what ?? '', what);
    assert.match(conditions.list()[0]?.mend.join() ?? '', mend);
    assert.deepEqual(causes(), ['cluster_key']);
  };
  await told(
    () => writeFileSync(key_file, 'a key\nanother key'),
    /has changed, and the swarm goes on with what it held before/,
    /^systemctl restart layerswarm$/,
  );
  await told(() => chmodSync(key_file, 0o644), /may be read by others.*goes on/, /^chmod 600/);
  await told(
    () => rmSync(key_file),
    /no cluster key at .*; the swarm goes on/,
    /setup --cluster-key/,
  );
  writeFileSync(key_file, 'a key', { mode: 0o600 });
  await within(6_000, () => causes().length === 0);
  assert.deepEqual(causes(), []);
  assert.deepEqual([swarms.length, swarms[0]?.closed], [1, 0]);
});

test('a start that never ends is given up, and undone when it ends after all', async (t) => {
  const late = Promise.withResolvers<RunningSwarm>();
  const signals: AbortSignal[] = [];
  const { run, within, causes } = bench(t, (_modules, _config, { signal }) => {
    signals.push(signal);
    return late.promise;
  });
  void run();
  await within(40_000, () => causes().length > 0);
  assert.deepEqual(causes(), ['swarm_failed']);
  assert.equal(signals[0]?.aborted, true);
  const swarm = new ScriptedSwarm();
  late.resolve(swarm);
  await settle();
  assert.ok(swarm.closed >= 1);
});

test('a swarm that hangs in its end holds nobody: its peers are gone at once and a new one begins', async (t) => {
  const swarms: ScriptedSwarm[] = [];
  const { run, within, supervisor } = bench(t, async () => {
    const swarm = new ScriptedSwarm();
    const fetch = Promise.withResolvers<never>();
    swarm.sources = [sourceThat(() => fetch.promise)];
    swarm.close = () => new Promise(() => undefined);
    swarms.push(swarm);
    return swarm;
  });
  void run();
  await supervisor.tried;
  const [source] = supervisor.find(DIGEST, 10);
  const fetched = source!.fetch(0, 10, { signal: new AbortController().signal });
  swarms[0]!.end.reject(new TypeError('a loop'));
  await assert.rejects(fetched, { code: 'internal' });
  assert.deepEqual(supervisor.find(DIGEST, 10), []);
  await within(20_000, () => supervisor.find(DIGEST, 10).length > 0);
  assert.equal(swarms.length, 2);
  assert.equal(supervisor.find(DIGEST, 10).length, 1);
});

test('an error of the swarm never reaches who asks it or tells it something', async (t) => {
  let modules: SwarmModules | undefined;
  const broken = (): never => {
    throw new TypeError('broken');
  };
  const { run, supervisor, blobs, causes } = bench(t, async (given) => {
    modules = given;
    const swarm = new ScriptedSwarm();
    swarm.find = broken;
    return swarm;
  });
  void run();
  await supervisor.tried;
  modules!.store.onShared(broken);
  blobs.put(Buffer.from('a blob that the store has just committed'));
  assert.deepEqual(supervisor.find(DIGEST, 10), []);
  await settle();
  assert.deepEqual(causes(), ['swarm_failed']);
});

test('a standing that throws costs the swarm and never the pull that reads it', async (t) => {
  const { run, supervisor, causes } = bench(t, async () => {
    const swarm = new ScriptedSwarm();
    const now_ms = (): number => {
      throw new TypeError('a clock that fails');
    };
    const standing = new HostStanding({ clock: { now_ms } }, { ban_ms: 1 });
    swarm.sources = [{ ...sourceThat(() => Promise.reject(new Error('never asked'))), standing }];
    return swarm;
  });
  void run();
  await supervisor.tried;
  const { standing } = supervisor.find(DIGEST, 10)[0]!;
  assert.deepEqual([standing.rate, standing.demoted()], [undefined, undefined]);
  assert.equal(standing.excluded()?.reason, 'gone');
  standing.begin()();
  standing.stalling();
  await settle();
  assert.deepEqual(causes(), ['swarm_failed']);
});

test('what a caller says of its request reaches the source', async (t) => {
  let heard: Parameters<PieceSource['fetch']>[2] | undefined;
  const { run, supervisor } = bench(t, async () => {
    const swarm = new ScriptedSwarm();
    const fetch: PieceSource['fetch'] = (_index, _length, options) => {
      heard = options;
      return Promise.reject(new Error('enough'));
    };
    swarm.sources = [{ ...sourceThat(() => Promise.reject(new Error('not this'))), fetch }];
    return swarm;
  });
  void run();
  await supervisor.tried;
  const signal = new AbortController().signal;
  const [source] = supervisor.find(DIGEST, 10);
  await assert.rejects(source!.fetch(0, 10, { signal, patience_ms: 700 }));
  assert.equal(heard?.patience_ms, 700);
});

test('a swarm that stays up for a while is no longer told to have failed', async (t) => {
  let starts = 0;
  const { run, within, causes } = bench(t, async () => {
    const swarm = new ScriptedSwarm();
    if (starts++ === 0) swarm.end.reject(new TypeError('once'));
    return swarm;
  });
  void run();
  await within(6_000, () => starts === 2);
  assert.deepEqual([starts, causes()], [2, ['swarm_failed']]);
  await within(15_000, () => causes().length === 0);
  assert.deepEqual(causes(), []);
});

test('an abort of the caller reaches the source, and its answer the caller', async (t) => {
  const { run, supervisor } = bench(t, async () => {
    const swarm = new ScriptedSwarm();
    swarm.sources = [
      sourceThat(
        (signal) =>
          new Promise((_resolve, reject) => {
            signal.addEventListener('abort', () => reject(signal.reason as Error));
          }),
      ),
    ];
    return swarm;
  });
  void run();
  await supervisor.tried;
  const caller = new AbortController();
  const [source] = supervisor.find(DIGEST, 10);
  const fetched = source!.fetch(0, 10, { signal: caller.signal });
  caller.abort(new DaemonError('cancelled', 'gone'));
  await assert.rejects(fetched, { code: 'cancelled' });
});

test('leaving closes the swarm and begins no other', async (t) => {
  const swarms: ScriptedSwarm[] = [];
  const { run, supervisor, causes } = bench(t, async () => {
    const swarm = new ScriptedSwarm();
    swarms.push(swarm);
    return swarm;
  });
  const running = run();
  await supervisor.tried;
  await supervisor.leave();
  await running;
  assert.deepEqual([swarms.length, swarms[0]?.closed, causes()], [1, 1, []]);
});

function sourceThat(fetch: (signal: AbortSignal) => Promise<never>): PieceSource {
  return {
    id: 'p',
    kind: 'peer',
    near: false,
    depth: 1,
    standing: new HostStanding({ clock: new FakeClock() }, { ban_ms: 1 }),
    list: () => Promise.reject(new Error('no list')),
    fetch: (_index, _length, { signal }) => fetch(signal),
    blame: () => undefined,
  };
}
