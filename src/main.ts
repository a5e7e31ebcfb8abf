#!/usr/bin/env node
/** The command `layerswarm`: joins the command line to the world. Each subcommand loads only what it needs. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline/promises';
import { setFlagsFromString } from 'node:v8';
import { systemClock } from './base/clock.ts';
import { INSTALL_ROOT } from './base/install-root.ts';
import { runCommand } from './cli/program.ts';

// libuv's pool of 4 would be full with four slow fsyncs, and every read would wait behind them. Read when the pool is first used.
process.env['UV_THREADPOOL_SIZE'] ??= '16';

const { version } = JSON.parse(readFileSync(join(INSTALL_ROOT, 'package.json'), 'utf8')) as {
  version: string;
};

async function confirm(question: string, signal: AbortSignal): Promise<boolean> {
  using terminal = createInterface({ input: process.stdin, output: process.stdout });
  return /^y(es)?$/i.test((await terminal.question(question, { signal })).trim());
}

process.exitCode = await runCommand(
  {
    output: {
      out: (text) => void process.stdout.write(text),
      err: (text) => void process.stderr.write(text),
      terminal: process.stdout.isTTY && (process.env['NO_COLOR'] ?? '') === '',
    },
    clock: systemClock,
    version,
    environment: process.env,
    runDaemon: async (config) => {
      // A young generation that stays small: 17 MB less resident, and the daemon's large buffers are not on the heap anyway.
      setFlagsFromString('--semi-space-growth-factor=1');
      // V8 counts buffers against a small heap and collected all of it every 8 MB received; letting it grow fourfold
      // between collections made transfers 1.7 to 1.9 times as fast, for 40 MB more at the peak.
      setFlagsFromString('--heap-growing-percent=300');
      const { runDaemon } = await import('./daemon-process.ts');
      return runDaemon(config, { version, environment: process.env });
    },
    generateClusterKey: async () =>
      (await import('./swarm/admission/cluster-key.ts')).generateClusterKey(),
    fetchStatus: async (socket_path, signal) => {
      const { fetchStatus } = await import('./cli/control-client.ts');
      return fetchStatus(socket_path, signal);
    },
    host: {
      is_root: process.getuid?.() === 0,
      confirm: process.stdin.isTTY && process.stdout.isTTY ? confirm : undefined,
      wiring: async (root) => {
        const { HostFiles } = await import('./host/host-files.ts');
        const { runProgram } = await import('./host/run-program.ts');
        return {
          files: new HostFiles(root),
          run: runProgram,
          clock: systemClock,
          daemonAnswers: async (socket_path, signal) =>
            (await import('./cli/control-client.ts')).fetchStatus(socket_path, signal),
          generateClusterKey: async () =>
            (await import('./swarm/admission/cluster-key.ts')).generateClusterKey(),
          checkClusterKey: async (text, path) =>
            void (await import('./swarm/admission/cluster-key.ts')).ClusterKeys.parse(text, path),
          checkPeerAddress: async (text) =>
            void (await import('./swarm/membership/addresses.ts')).parseBootstrap(text),
        };
      },
    },
    doctor: async () => {
      const [client, content, keys, programs] = await Promise.all([
        import('./cli/control-client.ts'),
        import('./cli/content-client.ts'),
        import('./swarm/admission/cluster-key.ts'),
        import('./host/run-program.ts'),
      ]);
      return {
        fetchStatus: client.fetchStatus,
        openBlobDoor: content.openBlobDoor,
        openDaemon: client.openControl,
        loadClusterKey: async (path) => {
          await keys.ClusterKeys.load(path);
        },
        run: programs.runProgram,
      };
    },
    repair: async () => {
      const [control, content, containerd, process_probe, programs] = await Promise.all([
        import('./cli/control-client.ts'),
        import('./cli/content-client.ts'),
        import('./cli/containerd-client.ts'),
        import('./host/doctor/containerd-process.ts'),
        import('./host/run-program.ts'),
      ]);
      return {
        openDaemon: control.openControl,
        openBlobDoor: content.openBlobDoor,
        openContainerd: containerd.openContainerd,
        containerdAddress: async (config_file, signal) =>
          process_probe.containerdAddress(programs.runProgram, config_file, signal),
      };
    },
    registry: async () => {
      const [client, containerd, process_probe, programs, command] = await Promise.all([
        import('./registry/registry-client.ts'),
        import('./cli/containerd-client.ts'),
        import('./host/doctor/containerd-process.ts'),
        import('./host/run-program.ts'),
        import('./cli/registry-command.ts'),
      ]);
      const { runProgram: run } = programs;
      return {
        openClient: (config) => new client.RegistryClient({ clock: systemClock, run }, config),
        containerd: async (config_file, signal) =>
          command.containerdPlaces(await process_probe.probeContainerd(run, config_file, signal)),
        openContainerd: containerd.openContainerd,
      };
    },
    interrupted: () => {
      const controller = new AbortController();
      for (const name of ['SIGINT', 'SIGTERM'] as const) {
        process.once(name, () => controller.abort());
      }
      return controller.signal;
    },
  },
  process.argv.slice(2),
);
