// The names everything of the bench carries, and the removal of what a killed run left behind.
import { mkdtemp, readdir, readFile, readlink, rm, rmdir, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { runCommand, tryCommand } from './run-command.ts';

/** Every namespace, scratch directory and cgroup of this process starts with this. */
export const RUN_PREFIX = `ls${process.pid}-`;

/** containerd keeps the sockets of its shims here whatever its configuration says. */
export const SHIM_SOCKETS = '/run/containerd';
const CGROUP_ROOT = '/sys/fs/cgroup';
/** Inodes of the network namespaces this run made; a process may outlive the name of its namespace. */
const inodes = new Set<number>();

/** Notes a namespace this run made, so that `residueOf` can find processes in it for ever. */
export async function rememberNamespace(name: string): Promise<void> {
  inodes.add((await stat(`/run/netns/${name}`)).ino);
}

/** What of a run is still on the machine; all empty when it cleaned up. */
export interface Residue {
  readonly namespaces: readonly string[];
  readonly processes: readonly string[];
  readonly mounts: readonly string[];
  readonly directories: readonly string[];
  readonly cgroups: readonly string[];
}

/** A scratch directory of this run; its path is short enough for unix sockets inside. The caller removes it. */
export async function scratchDir(name: string): Promise<string> {
  return mkdtemp(join(tmpdir(), `${RUN_PREFIX}${name}-`));
}

/** Lists what carries this run's prefix. */
export async function residueOf(prefix = RUN_PREFIX): Promise<Residue> {
  const mounts = await readFile('/proc/self/mountinfo', 'utf8');
  const processes: string[] = [];
  // The kernel gives numbers of namespaces that are gone to new ones, which may be another run's.
  const others = new Set<number>();
  for (const name of (await namespaces()).filter((n) => !n.startsWith(prefix))) {
    others.add(
      await stat(`/run/netns/${name}`).then(
        (s) => s.ino,
        () => 0,
      ),
    );
  }
  for (const p of await processTable()) {
    const net = await readlink(`/proc/${p.pid}/ns/net`).catch(() => '');
    const number = Number(/\d+/.exec(net)?.[0]);
    const inside = inodes.has(number) && !others.has(number);
    if (p.pid !== process.pid && (inside || p.command.includes(`/${prefix}`)))
      processes.push(`${p.pid} ${p.command}`);
  }
  return {
    namespaces: (await namespaces()).filter((n) => n.startsWith(prefix)),
    processes,
    mounts: mounts.split('\n').filter((line) => line.includes(`/${prefix}`)),
    directories: (await readdir(tmpdir())).filter((n) => n.startsWith(prefix)),
    cgroups: await cgroupsOf(prefix),
  };
}

/**
 * Removes what runs left behind whose process no longer lives: their processes, namespaces, cgroups and scratch
 * directories. Runs of living processes are not touched. Resolves to whether the run of `awaited` (a prefix) was among them.
 */
export async function sweepDeadRuns(awaited = ''): Promise<boolean> {
  const names = [...(await namespaces()), ...(await readdir(tmpdir())), ...(await cgroupsOf('ls'))];
  const dead = new Set<string>();
  for (const name of names) {
    const pid = /(?:^|\/)ls(\d+)-[^/]*$/.exec(name)?.[1];
    if (pid !== undefined && !(await isAlive(Number(pid)))) dead.add(`ls${pid}-`);
  }
  for (const prefix of dead) {
    for (const ns of (await namespaces()).filter((n) => n.startsWith(prefix)))
      await removeNamespace(ns);
    await removeCgroups(prefix);
    for (const dir of (await readdir(tmpdir())).filter((n) => n.startsWith(prefix)))
      await rm(join(tmpdir(), dir), { recursive: true, force: true });
  }
  if (dead.size > 0) await removeShimSockets();
  return dead.has(awaited);
}

/** Takes away the directory hosts mount their private shim sockets on, unless something else uses it. */
export async function removeShimSockets(): Promise<void> {
  await rmdir(SHIM_SOCKETS).catch(() => undefined);
}

/** Kills what runs in a named network namespace (containers started from there too), then removes the name. */
export async function removeNamespace(name: string): Promise<void> {
  await killNamespace(name);
  await tryCommand(['ip', 'netns', 'del', name]);
}

/**
 * Kills every process of a network namespace and their descendants by pid, and waits until they are gone. A container
 * with a network of its own is found through its shim.
 */
export async function killNamespace(name: string): Promise<void> {
  const deadline = performance.now() + 10_000;
  for (;;) {
    const pids = await namespacePids(name);
    if (pids.length === 0) return;
    if (performance.now() > deadline)
      throw new Error(`processes ${pids.join(', ')} of namespace ${name} survive SIGKILL`);
    for (const pid of pids) signalPid(pid, 'SIGKILL');
    await pause(20);
  }
}

/** The pids in a named network namespace and all their descendants, zombies left out. */
async function namespacePids(name: string): Promise<number[]> {
  const listed = await tryCommand(['ip', 'netns', 'pids', name]);
  const found = new Set(listed.stdout.split(/\s+/).filter(Boolean).map(Number));
  const table = await processTable();
  for (let grew = true; grew; ) {
    const before = found.size;
    for (const p of table) if (found.has(p.parent)) found.add(p.pid);
    grew = found.size > before;
  }
  const living = new Set(table.filter((p) => p.state !== 'Z').map((p) => p.pid));
  return [...found].filter((pid) => living.has(pid) && pid !== process.pid);
}

/** Removes the (empty) cgroups whose name starts with `prefix` in every hierarchy. */
export async function removeCgroups(prefix: string): Promise<void> {
  for (const path of await cgroupsOf(prefix)) await removeCgroupTree(path);
}

/** Lets other work run for `ms`; only for polling the kernel, never to guess a duration. */
export async function pause(ms: number): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, ms));
}

interface ProcessRow {
  readonly pid: number;
  readonly parent: number;
  readonly state: string;
  readonly command: string;
}

async function processTable(): Promise<ProcessRow[]> {
  const pids = (await readdir('/proc')).filter((n) => /^\d+$/.test(n));
  const rows = await Promise.all(
    pids.map(async (pid): Promise<ProcessRow[]> => {
      // A process may end between the listing and the reading.
      const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '');
      const fields = /^\d+ \(.*\) (\S) (\d+)/s.exec(stat);
      if (fields === null) return [];
      const argv = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
      const command = argv.replaceAll('\0', ' ').trim();
      return [{ pid: Number(pid), parent: Number(fields[2]), state: fields[1]!, command }];
    }),
  );
  return rows.flat();
}

async function namespaces(): Promise<string[]> {
  return readdir('/run/netns').catch(() => []);
}

async function cgroupsOf(prefix: string): Promise<string[]> {
  const found: string[] = [];
  // One level for cgroup v2, two for the hierarchies of v1.
  for (const name of await directories(CGROUP_ROOT)) {
    if (name.startsWith(prefix)) found.push(join(CGROUP_ROOT, name));
    if ((await readlink(join(CGROUP_ROOT, name)).catch(() => undefined)) !== undefined) continue;
    for (const inner of await directories(join(CGROUP_ROOT, name)))
      if (inner.startsWith(prefix)) found.push(join(CGROUP_ROOT, name, inner));
  }
  return found;
}

async function removeCgroupTree(path: string): Promise<void> {
  for (const inner of await directories(path)) await removeCgroupTree(join(path, inner));
  // The kernel frees a cgroup a moment after its last process; rmdir says EBUSY until then.
  const deadline = performance.now() + 5000;
  for (;;) {
    const error = await rmdir(path).then(
      () => undefined,
      (cause: unknown) => cause as NodeJS.ErrnoException,
    );
    if (error?.code !== 'EBUSY' || performance.now() > deadline) return;
    await pause(20);
  }
}

async function directories(path: string): Promise<string[]> {
  const entries = await readdir(path, { withFileTypes: true }).catch(() => []);
  return entries.filter((e) => e.isDirectory()).map((e) => e.name);
}

/** A zombie is dead: its parent may never ask for it. */
async function isAlive(pid: number): Promise<boolean> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '');
  return /^\d+ \(.*\) [^ZX] /s.test(stat);
}

/** Sends a signal to one pid; false when it no longer exists. */
function signalPid(pid: number, signal: NodeJS.Signals): boolean {
  try {
    process.kill(pid, signal);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

/** Runs one shell script inside a named network namespace; for set-up only. */
export async function shellIn(namespace: string, script: string): Promise<void> {
  await runCommand(['nsenter', `--net=/run/netns/${namespace}`, '--', 'sh', '-euc', script]);
}
