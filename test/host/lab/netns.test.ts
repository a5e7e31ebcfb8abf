import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { resolve } from 'node:path';
import { after, suite, test } from 'node:test';
import { isDeepStrictEqual } from 'node:util';
import { untilTrue } from '../wait.ts';
import { LabDaemon } from './daemon.ts';
import { goReason } from './go-programs.ts';
import type { LabHost } from './host.ts';
import { LabNetwork } from './netns.ts';
import { residueOf } from './residue.ts';

const NOTHING = { namespaces: [], processes: [], mounts: [], directories: [], cgroups: [] };
const ECHO = `
const udp = require('node:dgram').createSocket('udp4');
udp.on('message', (text, from) => udp.send(text, from.port, from.address));
udp.bind(9000, () => require('node:net').createServer((c) => c.pipe(c)).listen(9000, () =>
  require('node:fs').writeFileSync(process.argv[1], 'up')));`;
const ASK = `
const [, to] = process.argv;
const udp = require('node:dgram').createSocket('udp4');
const answers = { udp: false, tcp: false };
udp.on('message', () => { answers.udp = true; });
udp.on('error', () => undefined);
const tcp = require('node:net').connect(9000, to, () => tcp.write('x'));
tcp.on('data', () => { answers.tcp = true; });
tcp.on('error', () => undefined);
const ask = setInterval(() => udp.send('x', 9000, to), 50);
const end = () => { console.log(JSON.stringify(answers)); process.exit(); };
setInterval(() => { if (answers.udp && answers.tcp) end(); }, 10);
setTimeout(end, 700);`;

async function reach(from: LabHost, to: LabHost): Promise<unknown> {
  const { stdout } = await from.run([process.execPath, '-e', ASK, to.address]);
  return JSON.parse(stdout);
}

/** Time of a TCP handshake, the shortest of five, in ms. */
async function roundTrip(from: LabHost, to: LabHost): Promise<number> {
  // Nobody listens: the refusal is an answer as well.
  const script = `
    const once = () => new Promise((done) => {
      const start = performance.now();
      require('node:net').connect(9, process.argv[1]).on('error', () => done(performance.now() - start));
    });
    (async () => {
      const took = [];
      for (let i = 0; i < 5; i++) took.push(await once());
      console.log(Math.min(...took));
    })();`;
  return Number((await from.run([process.execPath, '-e', script, to.address])).stdout);
}

suite('hosts of the lab network', { timeout: 300_000 }, () => {
  after(async () => assert.deepEqual(await residueOf(), NOTHING));

  test('reach one another, and a silenced, unplugged or UDP-less host is what it says', async () => {
    await using network = await LabNetwork.create();
    const a = await network.addHost('a');
    const b = await network.addHost('b');
    const flag = `${b.dir}/up`;
    await using echo = await LabDaemon.start(b, {
      argv: [process.execPath, '-e', ECHO, flag],
      ready: async () => (await b.tryRun(['test', '-e', flag])).code === 0,
    });
    assert.equal(echo.process.running, true);
    const all = { udp: true, tcp: true };
    const none = { udp: false, tcp: false };
    assert.deepEqual(await reach(a, b), all);
    await b.silence();
    assert.deepEqual(await reach(a, b), none);
    await b.plug();
    await b.unplug();
    assert.deepEqual(await reach(a, b), none);
    await b.plug();
    await b.dropUdp(true);
    assert.deepEqual(await reach(a, b), { udp: false, tcp: true });
    await b.dropUdp(false);
    await b.shape({ rate_bits: 50_000_000 });
    assert.deepEqual(await reach(a, b), all);
  });

  test('a delay of 40 ms each way makes a round trip of 80 ms, and goes away again', {
    skip: goReason() ?? false,
  }, async () => {
    await using network = await LabNetwork.create();
    const a = await network.addHost('a');
    const b = await network.addHost('b');
    await b.shape({ delay_ms: 40, rate_bits: 200_000_000 });
    const slow_ms = await roundTrip(a, b);
    assert.ok(slow_ms >= 80 && slow_ms < 400, `${slow_ms} ms`);
    await b.shape({});
    const quick_ms = await roundTrip(a, b);
    assert.ok(quick_ms < 40, `${quick_ms} ms`);
  });

  test('a process that is killed in the middle of it leaves no namespace, directory or process for long', async () => {
    const make = `
      const { LabNetwork } = await import(process.argv[1]);
      const network = await LabNetwork.create();
      await (await network.addHost('a')).spawn('sleep', ['sleep', '600']);
      process.stdout.write('up');
      setInterval(() => undefined, 1000);`;
    const argv = ['--disable-warning=ExperimentalWarning', '--input-type=module', '-e', make];
    const child = spawn(process.execPath, [...argv, resolve(import.meta.dirname, 'netns.ts')]);
    await once(child.stdout, 'data');
    const prefix = `ls${child.pid}-`;
    assert.notDeepEqual(await residueOf(prefix), NOTHING);
    child.kill('SIGKILL');
    await untilTrue('nothing left', async () =>
      isDeepStrictEqual(await residueOf(prefix), NOTHING),
    );
  });

  test('a daemon that ends at once fails its start with the end of its log', async () => {
    await using network = await LabNetwork.create();
    const host = await network.addHost('a');
    const start = LabDaemon.start(host, {
      argv: ['sh', '-c', 'echo no such key; exit 3'],
      ready: async () => false,
    });
    await assert.rejects(start, /ended before it was ready[^]*no such key/);
  });
});
