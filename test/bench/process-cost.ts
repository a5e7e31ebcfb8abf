import { readFile, writeFile } from 'node:fs/promises';

/** USER_HZ, which Linux fixes for programs whatever the kernel's own tick is. */
const TICKS_PER_SECOND = 100;

/** CPU seconds a process has used so far, user and system, with those of its ended children. To 10 ms. */
export async function cpuSeconds(pid: number): Promise<number> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8');
  // The name in parentheses may contain anything; the fields after it are numbers.
  const fields = stat
    .slice(stat.lastIndexOf(')') + 2)
    .split(' ')
    .map(Number);
  const [user = 0, system = 0, endedUser = 0, endedSystem = 0] = fields.slice(11, 15);
  return (user + system + endedUser + endedSystem) / TICKS_PER_SECOND;
}

/** Resident memory in MB (1e6 bytes): now, and the most since `forgetPeak`. */
export async function residentMb(
  pid: number,
): Promise<{ readonly now: number; readonly peak: number }> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8');
  const mb = (field: string): number =>
    (Number(new RegExp(`^${field}:\\s+(\\d+) kB$`, 'm').exec(status)?.[1]) * 1024) / 1e6;
  return { now: mb('VmRSS'), peak: mb('VmHWM') };
}

/** Makes the present memory the peak. */
export async function forgetPeak(pid: number): Promise<void> {
  await writeFile(`/proc/${pid}/clear_refs`, '5');
}

/** CPU seconds the processes use while `work` runs. */
export async function cpuDuring<T>(
  pids: readonly number[],
  work: () => Promise<T>,
): Promise<{ readonly value: T; readonly cpu_s: readonly number[] }> {
  const before = await Promise.all(pids.map(cpuSeconds));
  const value = await work();
  const after = await Promise.all(pids.map(cpuSeconds));
  return { value, cpu_s: after.map((cpu, i) => cpu - before[i]!) };
}
