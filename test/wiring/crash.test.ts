import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { CONTAINERD_IO } from './configs.ts';
import { FakeHost, KEY } from './fake-host.ts';

const OWN = '/etc/layerswarm/config.toml';
const SETUP = ['setup', '--yes', '--cluster-key', '/root/k', '--join', 'a:1'];
/** More than any run writes. */
const ALL = 1000;

function freshHost(t: TestContext): FakeHost {
  const host = new FakeHost(t, {
    version: '1.6.33',
    main: `${CONTAINERD_IO}root = "/data/c"\n`,
  });
  host.put('/root/k', `${KEY}\n`);
  host.put(OWN, '# ours\n');
  return host;
}

test('setup that crashed at any write is completed by the next run, and undone by teardown', async (t) => {
  const whole = freshHost(t);
  const { writes } = await whole.crashing(ALL, ...SETUP);
  const set = strip(whole.contents());
  assert.ok(writes >= 8, String(writes));
  for (let n = 0; n < writes; n += 1) {
    const host = freshHost(t);
    const before = host.contents();
    assert.equal((await host.crashing(n, ...SETUP)).code, 70);
    const again = await host.layerswarm(...SETUP);
    assert.equal(again.code, 0, `write ${n}: ${again.err}`);
    assert.deepEqual(strip(host.contents()), set, `write ${n}`);
    assert.match((await host.layerswarm(...SETUP)).out, /nothing to do/, `write ${n}`);
    const undone = await host.layerswarm('teardown', '--yes');
    assert.equal(undone.code, 0, `write ${n}: ${undone.err}`);
    assert.deepEqual(host.contents(), before, `write ${n}`);
  }
});

test('setup that crashed at any write is undone by teardown alone', async (t) => {
  const { writes } = await freshHost(t).crashing(ALL, ...SETUP);
  for (let n = 0; n < writes; n += 1) {
    const host = freshHost(t);
    const before = host.contents();
    await host.crashing(n, ...SETUP);
    const undone = await host.layerswarm('teardown', '--yes');
    assert.equal(undone.code, 0, `write ${n}: ${undone.err}`);
    assert.deepEqual(host.contents(), before, `write ${n}`);
  }
});

test('teardown that crashed at any write is completed by the next run', async (t) => {
  const first = freshHost(t);
  await first.layerswarm(...SETUP);
  const { writes } = await first.crashing(ALL, 'teardown', '--yes');
  assert.ok(writes >= 5, String(writes));
  for (let n = 0; n < writes; n += 1) {
    const host = freshHost(t);
    const before = host.contents();
    await host.layerswarm(...SETUP);
    assert.equal((await host.crashing(n, 'teardown', '--yes')).code, 70);
    const again = await host.layerswarm('teardown', '--yes');
    assert.equal(again.code, 0, `write ${n}: ${again.err}`);
    assert.deepEqual(strip(host.contents()), strip(before), `write ${n}`);
    assert.ok(!('/var/lib/layerswarm/setup' in host.contents()), `write ${n}`);
  }
});

/** Without our state directory: an empty one is no harm, and an unfinished record names copies that lie there twice. */
function strip(tree: Record<string, string>): Record<string, string> {
  return Object.fromEntries(
    Object.entries(tree).filter(([path]) => !path.startsWith('/var/lib/layerswarm')),
  );
}
