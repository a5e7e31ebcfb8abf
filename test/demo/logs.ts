// The logs of the demo's hosts, for the one who asks what happened.
import { glob, copyFile, mkdir, readFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import type { LabHost } from '../host/lab/host.ts';

/** Lines of each log that a failure shows, and characters of a line. */
const TAIL_LINES = 12;
const LINE_CHARS = 400;
/** Logs and configurations; never keys. */
const KEPT = ['*.log', '*.toml', '*.yml', 'containerd/config.toml'];

/** The ends of the logs in a host's directory, each below its name; empty when there are none. */
export async function logTails(dir: string): Promise<string> {
  let text = '';
  for await (const name of glob(['daemon.log', 'containerd.log', 'registry.log'], { cwd: dir })) {
    const all = await readFile(join(dir, name), 'utf8').catch(() => '');
    const lines = all.trimEnd().split('\n').slice(-TAIL_LINES);
    const cut = lines.map((line) => `  ${line.slice(0, LINE_CHARS)}`).join('\n');
    text += `\n--- end of ${name} of host ${hostOf(dir)}\n${cut}`;
  }
  return text;
}

/** Copies every host's logs and configurations to `<directory>/<host>/`. */
export async function copyLogs(hosts: readonly LabHost[], directory: string): Promise<void> {
  for (const host of hosts) {
    for await (const name of glob(KEPT, { cwd: host.dir })) {
      const target = join(directory, host.name, name);
      await mkdir(dirname(target), { recursive: true });
      await copyFile(join(host.dir, name), target);
    }
  }
}

/** A scratch directory is called `ls<pid>-<host>-<random>`. */
function hostOf(dir: string): string {
  return (basename(dir).split('-')[1] ?? '').toUpperCase();
}
