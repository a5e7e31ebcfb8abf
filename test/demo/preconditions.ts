// What must be true of the machine before anything is started.
import { access, constants, mkdir, stat, statfs } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname } from 'node:path';
import { cacheDir } from '../host/lab/debian-packages.ts';
import type { DemoOptions } from './options.ts';

const MIB = 1024 * 1024;
/** Per host: the blobs, the unpacked layers, and room for a transfer under way. */
const COPIES_PER_HOST = 3;
/** Unpacked Debian packages. */
const PACKAGES_MIB = 600;

/** Why the demo cannot run here, in one sentence; undefined when it can. */
export async function whyNot(options: DemoOptions): Promise<string | undefined> {
  if (process.platform !== 'linux')
    return `the demo makes Linux network namespaces and cannot run on ${process.platform}`;
  if (process.getuid?.() !== 0)
    return 'the demo makes network namespaces and starts containerd: run it as root';
  return (
    (await lackingFile(options)) ??
    (await lackingSpace(tmpdir(), options.image_mib * (COPIES_PER_HOST * options.hosts + 1))) ??
    (await lackingSpace(cacheDir(), options.image_mib + PACKAGES_MIB))
  );
}

async function lackingFile({ json, keep_logs }: DemoOptions): Promise<string | undefined> {
  if (json !== undefined) {
    const directory = dirname(json);
    if (!(await isDirectory(directory)))
      return `--json ${json}: there is no directory ${directory}`;
    if (await isDirectory(json)) return `--json ${json}: this is a directory, give a file`;
  }
  if (keep_logs === undefined) return undefined;
  try {
    // Not recursive: that never ends in a directory that cannot be made, such as one below /proc.
    if (!(await isDirectory(keep_logs))) await mkdir(keep_logs);
    await access(keep_logs, constants.W_OK);
    return undefined;
  } catch (error) {
    const { code = 'unknown error' } = error as NodeJS.ErrnoException;
    return `--keep-logs ${keep_logs}: this directory cannot be written (${code})`;
  }
}

async function isDirectory(path: string): Promise<boolean> {
  return stat(path).then(
    (found) => found.isDirectory(),
    () => false,
  );
}

async function lackingSpace(directory: string, need_mib: number): Promise<string | undefined> {
  await mkdir(directory, { recursive: true });
  const { bavail, bsize } = await statfs(directory);
  const free_mib = Math.floor((bavail * bsize) / MIB);
  if (free_mib >= need_mib) return undefined;
  return `the demo needs ${need_mib} MiB in ${directory} and ${free_mib} MiB are free: make room, or give a smaller --image-mib or --hosts`;
}
