// What happens to a wired host in its life: upgrade, downgrade, crash, hang, restart. Containerd never notices.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { layerBytes } from '../fixtures/image.ts';
import { untilTrue } from '../host/wait.ts';
import type { BenchHost, InstallBench, PushedImage } from './install-bench.ts';
import { CallLoop } from './lab/call-loop.ts';
import { SERVICE } from './lab/installed-host.ts';

/** Slow enough that the large image is on its way for seven seconds. */
const SLOW_BITS = 48_000_000;
/** Bytes that must have come before something is done to the daemon. */
const UNDER_WAY_BYTES = 6_000_000;
/** From the daemon's death to the answer of the next call, in ms. */
const NEXT_CALL_MS = 1500;
/** In the test only; the packaged unit has ten times that. */
const WATCHDOG = '/etc/systemd/system/layerswarm.service.d/90-test.conf';
const RESTARTS = 3;

/** Registers them; they need both hosts wired and meshed, and leave them so, on the current version. */
export function upkeepScenarios(bench: () => InstallBench): void {
  test('an upgrade during a pull fails no call; identity, cache and containerd stay, the pull goes on', async (t) => {
    const { b, app, more, large, files, versions } = bench();
    // No image needs it any more: its own layers become cache, for the peers.
    await b.containerd.removeImage(more.ref);
    await untilTrue('cached blobs', async () => (await b.installed.status()).cache_count > 0);
    await bench().seed(large);
    const before = await b.installed.status();
    const pids = [await b.containerd.pid(), await b.installed.pid()];
    const pull = await pullUnderWay(b, large);
    const loops = await callLoops(b, app);
    await b.installed.apt(files.next);
    assert.equal(await b.installed.dpkgStatus(), `ii  ${versions.next}-1`);
    for (const loop of loops) await loop.more(3);
    await b.host.lab.shape({});
    await pull.ended;
    await assertNoFailure(loops);
    await b.containerd.assertReadable(large.image);
    const after = await b.installed.status();
    assert.equal(after.peer_id, before.peer_id);
    assert.equal(after.cache_count, before.cache_count);
    assert.equal(await b.containerd.pid(), pids[0], 'containerd was restarted');
    assert.notEqual(await b.installed.pid(), pids[1], 'the daemon was not restarted');
    const total = layerBytes(large.image);
    const registry = await bench().registryBytes(large);
    t.diagnostic(
      `of ${total} bytes the registry gave ${registry}, peers after the upgrade ${after.received_bytes}`,
    );
    // What had come before the upgrade was not fetched again.
    assert.ok(registry + after.received_bytes <= total - UNDER_WAY_BYTES / 2);
  });

  test('a downgrade across one version keeps identity, images and the bytes of writes that were cut off', async () => {
    const { b, large, files, versions } = bench();
    await b.containerd.removeImage(large.ref);
    await forgetBlobs(b);
    await bench().ready(large);
    const { peer_id } = await b.installed.status();
    const cut = new AbortController();
    const pull = await pullUnderWay(b, large, cut.signal);
    cut.abort();
    await assert.rejects(pull.ended);
    // It says that it has ten million bytes and has five: what came is kept for its next try.
    const half =
      'head -c 5000000 /dev/urandom | ctr content ingest --expected-size 10000000 half-a-blob';
    await b.host.sh(`${half} || true`);
    const before = (await activeIngests(b)).filter(({ ref }) => ref === 'half-a-blob');
    assert.deepEqual(
      before.map(({ size }) => size !== '0 B' && size !== '0'),
      [true],
    );
    await b.installed.apt(files.current);
    await b.host.lab.shape({});
    assert.equal(await b.installed.dpkgStatus(), `ii  ${versions.current}-1`);
    const after = (await activeIngests(b)).filter(({ ref }) => ref === 'half-a-blob');
    assert.deepEqual(after, before);
    await b.host.sh('ctr content rm half-a-blob || true');
    assert.equal((await b.installed.status()).peer_id, peer_id);
    await b.containerd.pull(large.ref);
    await b.containerd.assertReadable(large.image);
    assert.equal(await b.containerd.runContainer(large.ref), `${large.image.greeting}\n`);
  });

  test('a pull that a restart does not wait for goes on with what had come', async (t) => {
    const { b, large, registry } = bench();
    await b.containerd.removeImage(large.ref);
    await forgetBlobs(b);
    const total = layerBytes(large.image);
    await configured(b, '[content]\ndrain_ms = 200\n', async () => {
      await bench().ready(large);
      await registry.forget();
      const pull = await pullUnderWay(b, large);
      await b.host.sh(`systemctl restart ${SERVICE}`);
      await b.host.lab.shape({});
      const first = await pull.ended.then(
        () => 'went on',
        () => 'was cut off',
      );
      // A kubelet tries again; so does this operator.
      if (first === 'was cut off') await b.containerd.pull(large.ref);
      await b.containerd.assertReadable(large.image);
      const { received_bytes } = await b.installed.status();
      const from_registry = await registry.layerBytes(large.image);
      t.diagnostic(
        `the pull ${first}; after the restart ${received_bytes} bytes of ${total} came from peers, ${from_registry} from the registry`,
      );
      assert.ok(received_bytes + from_registry <= total - UNDER_WAY_BYTES / 2);
    });
  });

  test('killed, the daemon answers the next call within 1.5 s', async (t) => {
    const { b, app } = bench();
    const [pid, containerd] = [await b.installed.pid(), await b.containerd.pid()];
    const { digest } = app.image.config;
    await b.host.sh(`ctr content get ${digest} > /dev/null; kill -KILL ${pid}`);
    const { elapsed_ms } = await b.host.run(['ctr', 'content', 'get', digest]);
    t.diagnostic(`answered after ${elapsed_ms.toFixed(0)} ms, ctr's own start included`);
    assert.ok(elapsed_ms < NEXT_CALL_MS, `${elapsed_ms} ms`);
    assert.notEqual(await b.installed.pid(), pid);
    assert.equal(await b.containerd.pid(), containerd, 'containerd was restarted');
  });

  test('a daemon that hangs is killed by the watchdog and replaced', async () => {
    const { b, app } = bench();
    const text = '[Service]\nWatchdogSec=3\n';
    await b.host.run(['sh', '-c', `mkdir -p \${0%/*}; cat > $0`, WATCHDOG], { input: text });
    await b.host.sh(`systemctl daemon-reload; systemctl restart ${SERVICE}`);
    const pid = await b.installed.pid();
    await b.host.sh(`kill -STOP ${pid}`);
    await untilTrue('another daemon', async () => ![0, pid].includes(await b.installed.pid()));
    await b.host.run(['ctr', 'content', 'get', app.image.config.digest]);
    assert.match(await b.host.journal(SERVICE), /[Ww]atchdog timeout/);
    await b.host.sh(`rm -r ${WATCHDOG.replace(/\/[^/]*$/, '')}; systemctl daemon-reload`);
    await b.host.sh(`systemctl restart ${SERVICE}`);
    assert.equal(await b.host.property(SERVICE, 'WatchdogUSec'), '30s');
  });

  test('restarts with calls in flight fail none of them', async (t) => {
    const { b, app } = bench();
    const loops = await callLoops(b, app);
    for (let i = 0; i < RESTARTS; i++) {
      const pid = await b.installed.pid();
      await b.host.sh(`systemctl restart ${SERVICE}`);
      assert.notEqual(await b.installed.pid(), pid);
      for (const loop of loops) await loop.more(2);
    }
    const calls = await assertNoFailure(loops);
    t.diagnostic(`${calls} calls over ${RESTARTS} restarts`);
    assert.equal(await b.host.failedUnits(), '');
  });
}

/** Starts a slow pull; resolves once a part of it has come. `ended` is the whole of it. */
async function pullUnderWay(
  { host, installed, containerd }: BenchHost,
  { ref }: PushedImage,
  signal?: AbortSignal,
): Promise<{ readonly ended: Promise<void> }> {
  await host.lab.shape({ rate_bits: SLOW_BITS });
  const start = (await installed.status()).received_bytes;
  const pull = containerd.pull(ref, signal === undefined ? {} : { signal });
  const early = pull.then(() => assert.fail('the pull was over before anything could happen'));
  // Awaited by the caller; until then a failure must not end the process.
  early.catch(() => undefined);
  const under_way = untilTrue('a pull under way', async () => {
    return (await installed.status()).received_bytes > start + UNDER_WAY_BYTES;
  });
  await Promise.race([early, under_way]);
  return { ended: pull };
}

/** One loop over a small blob (a call each few milliseconds) and one over the largest layer (always in the middle of one). */
async function callLoops(
  { host }: BenchHost,
  { image }: PushedImage,
): Promise<readonly CallLoop[]> {
  const largest = image.layers.toSorted((x, y) => y.size - x.size)[0]!;
  const loops: CallLoop[] = [];
  for (const { digest } of [image.config, largest]) loops.push(await CallLoop.start(host, digest));
  return loops;
}

async function assertNoFailure(loops: readonly CallLoop[]): Promise<number> {
  let calls = 0;
  for (const loop of loops) calls += await loop.stopWithoutFailure();
  return calls;
}

/** Makes the daemon drop what it keeps for the peers, so that a pull has to fetch. */
async function forgetBlobs(on: BenchHost): Promise<void> {
  await on.containerd.endLeases();
  await configured(on, '[store]\ncache_max_bytes = 0\n', async () =>
    untilTrue('an empty cache', async () => (await on.installed.status()).cache_count === 0),
  );
}

/** Does something while the daemon runs with a further section in its configuration; the file is as before then. */
async function configured(
  { host, containerd }: BenchHost,
  section: string,
  work: () => Promise<void>,
): Promise<void> {
  const config = '/etc/layerswarm/config.toml';
  const restart = `systemctl restart ${SERVICE}`;
  await host.sh(`cp ${config} /root/config.toml`);
  await host.run(['sh', '-c', `cat >> ${config}; ${restart}`], { input: section });
  await containerd.storeAnswers();
  try {
    await work();
  } finally {
    await host.sh(`cat /root/config.toml > ${config}; rm /root/config.toml; ${restart}`);
    await containerd.storeAnswers();
  }
}

/** The ingests containerd knows, and how much of them is there, as ctr prints it. */
async function activeIngests({
  host,
}: BenchHost): Promise<readonly { readonly ref: string; readonly size: string }[]> {
  const rows = (await host.sh('ctr content active')).split('\n').slice(1);
  return rows
    .map((row) => row.trim().split(/\t+|\s{2,}/))
    .filter(([ref]) => ref !== undefined && ref !== '')
    .map(([ref = '', size = '']) => ({ ref, size }));
}
