// One process at a time, by flock(1): the kernel frees the lock when its holder dies.
import { spawn } from 'node:child_process';
import { once } from 'node:events';

/**
 * Runs `work` while holding an exclusive lock on `path` (created, never removed). Rejects when the lock is not
 * free within `deadline_ms`.
 */
export async function withFileLock<T>(
  path: string,
  deadline_ms: number,
  work: () => Promise<T>,
): Promise<T> {
  const seconds = Math.max(1, Math.ceil(deadline_ms / 1000));
  // The inner shell says when it holds the lock and lets go at the end of its input, so also when we die.
  const holder = spawn('flock', ['-w', `${seconds}`, path, 'sh', '-c', 'echo held; cat'], {
    stdio: ['pipe', 'pipe', 'ignore'],
  });
  holder.stdin.on('error', () => undefined);
  const held = Promise.withResolvers<boolean>();
  holder.stdout.once('data', () => held.resolve(true));
  holder.once('error', held.reject);
  const ended = once(holder, 'close').then(() => held.resolve(false));
  if (!(await held.promise))
    throw new Error(`another process held ${path} for ${seconds} s; see whether it still lives`);
  try {
    return await work();
  } finally {
    holder.stdin.end();
    await ended;
  }
}
