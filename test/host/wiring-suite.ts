// Setup and teardown with the real containerds: what they make of the files, and which content store they really load.
import assert from 'node:assert/strict';
import * as fs from 'node:fs';
import { dirname, join } from 'node:path';
import { after, before, suite, test } from 'node:test';
import { mapImports } from '../../src/host/containerd-config.ts';
import { liveStoreOf } from '../../src/host/containerd-restart.ts';
import { HostFiles } from '../../src/host/host-files.ts';
import { ctrOf, imagesLost, snapshotImages } from '../../src/host/image-check.ts';
import { runProgram, type RunProgram } from '../../src/host/run-program.ts';
import { ClusterKeys } from '../../src/swarm/admission/cluster-key.ts';
import { commandBench } from '../cli/command-bench.ts';
import { FakeClock } from '../fakes/fake-clock.ts';
import { blobPath, buildImage } from '../fixtures/image.ts';
import { CONTAINERD_IO } from '../wiring/configs.ts';
import { LabContainerd, containerdOf } from './lab/containerd.ts';
import {
  cacheDir,
  type ContainerdLine,
  type DebianTools,
  debianTools,
} from './lab/debian-packages.ts';
import { goReason } from './lab/go-programs.ts';
import { LabNetwork } from './lab/netns.ts';
import { LabRegistry } from './lab/registry.ts';
import type { LabHost } from './lab/host.ts';

const MAIN = '/etc/containerd/config.toml';
const KEY = 'ab'.repeat(32);
const LIMITS = { signal: new AbortController().signal, deadline_ms: 30_000 };
/** No CRI, no /opt: these start and stop in a moment and leave nothing on the machine. */
const SMALL = 'version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n';

/** The same in the words of 2.3. */
const FOUR =
  'version = 4\ndisabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime"]\n';

let tools: DebianTools;
let network: LabNetwork;
let host: LabHost;
let trees = 0;

/** Registers the suites of some lines; they share one lab network. */
export function wiringSuites(lines: readonly ContainerdLine[]): void {
  before(async () => {
    tools = await debianTools();
    network = await LabNetwork.create();
    host = await network.addHost('a');
  });
  after(async () => network[Symbol.asyncDispose]());

  for (const line of lines) {
    suite(`containerd ${line}`, { skip: goReason(line) ?? false }, () => {
      const mains: readonly { id: string; text: () => Promise<string | undefined> }[] = [
        {
          id: "Debian's file",
          text: async () =>
            fs.readFileSync(
              // An upgraded host keeps it under a newer program.
              join(debianBin(line), '../../etc/containerd/config.toml'),
              'utf8',
            ),
        },
        { id: "containerd.io's file", text: async () => CONTAINERD_IO },
        {
          id: 'all defaults written out',
          text: async () =>
            (
              await runProgram(
                [
                  join((await containerdOf(tools, line)).bin_dir, 'containerd'),
                  'config',
                  'default',
                ],
                LIMITS,
              )
            ).stdout,
        },
        { id: 'no file', text: async () => undefined },
      ];
      for (const { id, text } of mains) {
        test(`it takes what setup makes of ${id}, and teardown gives every byte back`, async (t) => {
          const main = await text();
          const { at, layerswarm, version } = await tree(t, line, main);
          const set = await layerswarm('setup', '--yes', '--cluster-key', '/root/k');
          assert.equal(set.code, 0, set.err);
          assert.match(set.out, new RegExp(`containerd ${version.replaceAll('.', '\\.')}`));
          assert.match((await layerswarm('setup')).out, /nothing to do/);
          const undone = await layerswarm('teardown', '--yes');
          assert.equal(undone.code, 0, undone.err);
          const left = fs.existsSync(at(MAIN)) ? fs.readFileSync(at(MAIN), 'utf8') : undefined;
          assert.equal(left, main);
          assert.ok(!fs.existsSync(at('/etc/containerd/conf.d')));
        });
      }

      test('a drop-in that would wake with the import is noticed', async (t) => {
        const { put, layerswarm } = await tree(t, line, SMALL);
        put('/etc/containerd/conf.d/10-old.toml', '[debug]\n  level = "trace"\n');
        const { code, err } = await layerswarm('setup', '--yes');
        assert.equal(code, 80);
        assert.match(err, /debug\.level \("" -> "trace"\)/);
      });

      const own = line === '2.3' || line === '2.4' ? { 'version 4': FOUR } : {};
      for (const [id, main] of Object.entries({
        'version 2': SMALL,
        'no version line': CONTAINERD_IO,
        ...own,
      })) {
        test(`started with ${id}, it has exactly our store after setup and its own before`, async (t) => {
          const { at, bin_dir, layerswarm } = await tree(t, line, main);
          assert.equal(await storeOf(bin_dir, at), 'builtin');
          const { code, err } = await layerswarm('setup', '--yes', '--cluster-key', '/root/k');
          assert.equal(code, 0, err);
          assert.equal(await storeOf(bin_dir, at), 'layerswarm');
        });
      }

      test('its images are told readable, and one that lost its manifest is told lost', async () => {
        const digits = line.replace('.', '');
        const [hub, own] = [
          await network.addHost(`hub${digits}`),
          await network.addHost(`c${digits}`),
        ];
        await using registry = await LabRegistry.start(hub, tools);
        const image = await buildImage(
          { seed: 'wiring', size_bytes: 200_000, layers: 2 },
          cacheDir(),
        );
        const ref = await registry.push(image, 'app', 'v1');
        const options = { line, registry: registry.address, store: { kind: 'builtin' } } as const;
        await using node = await LabContainerd.start(own, tools, options);
        await node.pull(ref, { client: 'ctr' });
        const ctr = ctrOf(
          runProgram,
          join((await containerdOf(tools, line)).bin_dir, 'ctr'),
          node.socket,
        );
        const whole = await snapshotImages(ctr, LIMITS.signal);
        const [[name, state] = ['', '']] = whole;
        assert.equal(whole.size, 1);
        assert.ok(name.endsWith(` ${ref}`), name);
        assert.match(state, / complete \(\d+\/\d+\) readable$/);
        fs.rmSync(join(node.content_dir, blobPath({ ...image, dir: '' }, image.manifest.digest)));
        const lost = imagesLost(whole, await snapshotImages(ctr, LIMITS.signal));
        assert.deepEqual(lost, [name]);
      });
    });
  }
}

/** A tree that stands in for a host, with the real containerd of a line behind /usr/bin/containerd. */
async function tree(t: Parameters<typeof commandBench>[0], line: ContainerdLine, main?: string) {
  const dir = await host.directory(`t${(trees += 1)}`);
  const at = (path: string) => dir + path;
  const put = (path: string, text: string) => {
    fs.mkdirSync(dirname(at(path)), { recursive: true });
    fs.writeFileSync(at(path), text);
  };
  const { bin_dir, version } = await containerdOf(tools, line);
  for (const name of ['containerd', 'ctr']) put(`/usr/bin/${name}`, '');
  fs.mkdirSync(at('/var/lib/containerd/io.containerd.content.v1.content'), { recursive: true });
  put('/root/k', `${KEY}\n`);
  if (main !== undefined) put(MAIN, main);
  const run: RunProgram = ([program = '', ...args], limits) =>
    runProgram([program.replace(at('/usr/bin'), bin_dir), ...args], limits);
  const wiring = async () => ({
    files: new HostFiles(dir),
    run,
    clock: new FakeClock(),
    daemonAnswers: () => Promise.resolve(),
    generateClusterKey: async () => KEY,
    checkClusterKey: async (text: string, path: string) => void ClusterKeys.parse(text, path),
    checkPeerAddress: async () => undefined,
  });
  const bench = commandBench(t, { host: { is_root: true, confirm: undefined, wiring } });
  return { at, put, bin_dir, version, layerswarm: bench.run };
}

/** Programs of the Debian package of a line, or of the newest one. */
function debianBin(line: ContainerdLine): string {
  return tools.containerd[line === '2.3' || line === '2.4' ? '2.1' : line].bin_dir;
}

/** Starts the real program with the tree's configuration and asks it. */
async function storeOf(bin_dir: string, at: (path: string) => string) {
  const text = fs.readFileSync(at(MAIN), 'utf8');
  const config = at('/live.toml');
  fs.writeFileSync(config, mapImports(text, at));
  const dir = at('/live');
  const [root, state, address] = [`${dir}/root`, `${dir}/state`, `${dir}/c.sock`];
  const flags = ['--config', config, '--root', root, '--state', state, '--address', address];
  const containerd = await host.spawn('containerd', [join(bin_dir, 'containerd'), ...flags]);
  const ctr = ctrOf(runProgram, join(bin_dir, 'ctr'), address);
  let listed = '';
  try {
    await containerd.ready(
      async () => {
        const { code, stdout } = await ctr(['plugins', 'ls'], LIMITS.signal);
        listed = stdout;
        return code === 0;
      },
      { deadline_ms: 20_000 },
    );
  } finally {
    await containerd.stop(10_000);
    fs.rmSync(dir, { recursive: true, force: true });
  }
  return liveStoreOf(listed);
}
