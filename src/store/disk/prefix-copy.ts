import * as fs from 'node:fs';
import { copyFile, rename, rm } from 'node:fs/promises';
import { closeFile, openFile, readAt, writeAt } from './descriptor.ts';
import { fileError } from './file-errors.ts';

const COPY_BYTES = 1024 * 1024;

/**
 * Puts the first `bytes` of `from` in place of `to`, whole or not at all: shared blocks where the file system can
 * (the caller truncates the surplus), otherwise a copy. `resource_exhausted`.
 */
export async function copyPrefix(from: string, to: string, bytes: number): Promise<void> {
  const half = `${to}.tmp`;
  try {
    if (!(await cloned(from, half))) await copied(from, half, bytes);
    await rename(half, to);
  } catch (error) {
    await rm(half, { force: true });
    throw fileError(error, 'write', to);
  }
}

async function cloned(from: string, to: string): Promise<boolean> {
  try {
    await copyFile(from, to, fs.constants.COPYFILE_FICLONE_FORCE);
    return true;
  } catch {
    // ext4 and tmpfs cannot; every other reason shows again in the copy.
    return false;
  }
}

async function copied(from: string, to: string, bytes: number): Promise<void> {
  const source = await openFile(from, 'r');
  try {
    const target = await openFile(to, 'w', 0o666);
    try {
      for (let at = 0; at < bytes; at += COPY_BYTES) {
        await writeAt(target, await readAt(source, Math.min(COPY_BYTES, bytes - at), at), at);
      }
    } finally {
      await closeFile(target);
    }
  } finally {
    await closeFile(source);
  }
}
