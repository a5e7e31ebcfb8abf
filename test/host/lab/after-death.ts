// Ctrl-C, a crash, a kill: a run that ends in the middle takes its processes along, but names, directories and cgroups would stay.
import { spawn } from 'node:child_process';
import { join } from 'node:path';

let living = 0;
let watching = false;

/** Notes that something is on the machine that must not stay; to be followed by `nothingStays`. */
export function somethingStays(): void {
  living += 1;
  if (watching) return;
  watching = true;
  // It waits for the end of its input, which the kernel makes when this process ends, however it ends; in a session of
  // its own, so that Ctrl-C does not reach it.
  const sweep = join(import.meta.dirname, 'sweep.ts');
  const script = 'cat > /dev/null; exec "$0" --disable-warning=ExperimentalWarning "$@"';
  const watcher = spawn('sh', ['-c', script, process.execPath, sweep, `${process.pid}`], {
    stdio: ['pipe', 'ignore', 'ignore'],
    detached: true,
  });
  watcher.unref();
  (watcher.stdin as unknown as { unref(): void }).unref();
  // Everything was removed: there is nothing to do for it.
  process.once('exit', () => {
    if (living === 0) watcher.kill('SIGKILL');
  });
}

/** What `somethingStays` was called for is gone. */
export function nothingStays(): void {
  living -= 1;
}
