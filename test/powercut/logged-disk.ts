// An ext4 file system on a lab host whose every block write is logged, and the same file system after a power cut.
import { closeSync, openSync, readSync, statSync } from 'node:fs';
import { mkdir, stat, truncate, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { ensurePrograms } from '../host/lab/debian-packages.ts';
import type { LabHost } from '../host/lab/host.ts';
import type { LabProcess } from '../host/lab/process.ts';
import { runCommand } from '../host/lab/run-command.ts';
import type { Cut } from './cut.ts';
import { readEntries } from './write-log.ts';
import type { LogEntry } from './write-log.ts';

const TOOLS: Readonly<Record<string, string>> = {
  'mkfs.ext4': 'e2fsprogs',
  filefrag: 'e2fsprogs',
  mount: 'mount',
  umount: 'mount',
  losetup: 'mount',
};
const SERVER = resolve(import.meta.dirname, 'disk-server.ts');
const CUTTER = resolve(import.meta.dirname, 'cut-disk.ts');
const NODE = [process.execPath, '--disable-warning=ExperimentalWarning'];
const BLOCK_BYTES = 4096;
const READY_MS = 10_000;
const CUT_MS = 60_000;

/** A run of a file's bytes on the disk. */
export interface Extent {
  readonly in_file: number;
  readonly on_disk: number;
  readonly length: number;
}

export interface LoggedDiskOptions {
  /** Where the host's programs see the file system. */
  readonly mountpoint: string;
  readonly size_bytes: number;
  /** Options of the ext4 mount, e.g. `commit=60`. */
  readonly mount_options?: readonly string[];
  /** How long the disk takes to flush, in ms. Default 0. */
  readonly flush_ms?: number;
  /** How quickly it writes. Default: as quickly as it can. */
  readonly bytes_per_ms?: number;
}

/**
 * Mounted from `create` to `unplug`, and once per `plugAfter` again. The stack: ext4, a loop device, one file of a FUSE server of ours.
 * The file server's end and the host's take everything away.
 */
export class LoggedDisk {
  readonly mountpoint: string;
  readonly #host: LabHost;
  readonly #options: LoggedDiskOptions;
  readonly #dir: string;
  #server: LabProcess | undefined;

  private constructor(host: LabHost, options: LoggedDiskOptions) {
    this.mountpoint = options.mountpoint;
    this.#host = host;
    this.#options = options;
    this.#dir = join(host.dir, 'disk');
  }

  /** Makes the file system and mounts it on `host`; rejects with one sentence that names what this machine lacks. */
  static async create(host: LabHost, options: LoggedDiskOptions): Promise<LoggedDisk> {
    await ensurePrograms(TOOLS);
    for (const [device, brings] of [
      ['/dev/fuse', 'FUSE (CONFIG_FUSE_FS)'],
      ['/dev/loop-control', 'loop devices (CONFIG_BLK_DEV_LOOP)'],
    ] as const)
      await stat(device).catch((error: unknown) => {
        throw new Error(`power cuts need a kernel with ${brings}: there is no ${device}`, {
          cause: error,
        });
      });
    const disk = new LoggedDisk(host, options);
    await disk.#make();
    return disk;
  }

  /** Bytes of the log so far: a point in time between two writes. */
  get position(): number {
    return statSync(this.#log).size;
  }

  /** The whole log; `position` of an entry's end is `data + length`. */
  entries(): readonly LogEntry[] {
    const log = openSync(this.#log, 'r');
    try {
      return readEntries(log);
    } finally {
      closeSync(log);
    }
  }

  /** Where on the disk a file lies, in the file's order; `file` is below the mountpoint. */
  async extentsOf(file: string): Promise<readonly Extent[]> {
    const { stdout } = await this.#host.run(['filefrag', '-v', `-b${BLOCK_BYTES}`, file]);
    // `ext: logical_first..last: physical_first..last: length:`
    const rows = stdout.matchAll(/^\s*\d+:\s*(\d+)\.\.\s*\d+:\s*(\d+)\.\.\s*\d+:\s*(\d+):/gm);
    return [...rows].map((row) => ({
      in_file: Number(row[1]) * BLOCK_BYTES,
      on_disk: Number(row[2]) * BLOCK_BYTES,
      length: Number(row[3]) * BLOCK_BYTES,
    }));
  }

  /** The bytes of a write. */
  dataOf(write: LogEntry): Buffer {
    const log = openSync(this.#log, 'r');
    try {
      const data = Buffer.allocUnsafe(write.length);
      readSync(log, data, 0, write.length, write.data);
      return data;
    } finally {
      closeSync(log);
    }
  }

  /** Unmounts whatever is mounted, orderly; nothing of the host may use it any more. */
  async unplug(): Promise<void> {
    await this.#host.run(['umount', this.mountpoint]);
    const server = this.#server;
    if (server === undefined) return;
    this.#server = undefined;
    await this.#host.run(['umount', this.#disk]);
    await server.exited;
  }

  /** Mounts the disk as `cut` left it; changes stay in memory, until `unplug`. */
  async plugAfter(cut: Cut): Promise<void> {
    const image = join(this.#dir, 'cut/image');
    const what = [this.#base, this.#log, image, JSON.stringify(cut)];
    await this.#host.run([...NODE, CUTTER, ...what], { deadline_ms: CUT_MS });
    await this.#mount(image);
  }

  get #base(): string {
    return join(this.#dir, 'base');
  }

  get #disk(): string {
    return join(this.#dir, 'disk');
  }

  get #log(): string {
    return join(this.#dir, 'log');
  }

  async #make(): Promise<void> {
    const cuts = join(this.#dir, 'cut');
    for (const path of [cuts, this.mountpoint]) await mkdir(path, { recursive: true });
    await this.#host.run(['mount', '-t', 'tmpfs', 'cuts', cuts]);
    for (const path of [this.#base, this.#disk, this.#log]) await writeFile(path, '');
    await truncate(this.#base, this.#options.size_bytes);
    await runCommand(['mkfs.ext4', '-q', '-F', '-m', '0', this.#base]);
    const image = `${this.#disk}.image`;
    await runCommand(['cp', '--sparse=always', this.#base, image]);
    const { flush_ms = 0, bytes_per_ms = Infinity } = this.#options;
    const pace = [`${flush_ms}`, `${bytes_per_ms}`];
    const argv = [...NODE, SERVER, image, this.#log, this.#disk, ...pace];
    this.#server = await this.#host.spawn('disk-server', argv);
    const served = async () =>
      (await this.#host.run(['stat', '-f', '-c', '%T', this.#disk])).stdout.includes('fuse');
    await this.#server.ready(served, { deadline_ms: READY_MS });
    await this.#mount(this.#disk);
  }

  async #mount(image: string): Promise<void> {
    // The inode tables of a sparse file are zero already.
    const options = ['loop', 'noinit_itable', ...(this.#options.mount_options ?? [])];
    await this.#host.run(['mount', '-t', 'ext4', '-o', options.join(), image, this.mountpoint]);
  }
}
