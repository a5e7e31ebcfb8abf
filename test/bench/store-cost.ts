import { createHash, randomBytes, randomUUID } from 'node:crypto';
import { open, rename, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { Digest } from '../../src/oci/digest.ts';
import { BenchDaemon, BenchDirectory } from './bench-daemon.ts';
import { type BlobFile, makeBlob } from './blob-file.ts';
import { ContentCalls, layerRef } from './content-calls.ts';
import type { BenchContext } from './part.ts';
import { median, quantile, type Row, row } from './row.ts';

/** What containerd's fetcher sends at a time. */
const MESSAGE_BYTES = 2 ** 20;
const KIB = 1024;
const MIB = 2 ** 20;

/** How long the last two calls of a blob took, in ms. */
type Ending = { readonly last_write_ms: number; readonly commit_ms: number };
/** Of a writer that tells the size at first, as pulls do, and of one that does not. */
type Way = 'sized' | 'unsized';

/**
 * What the store asks for its promises: a blob that is published before COMMIT (verified, forced to the disk, renamed, its directory forced
 * too), and a blob of the cache that is hashed again before it comes back. No swarm, everything in the page cache.
 */
export async function storeCost(context: BenchContext): Promise<Row[]> {
  const { scope } = context;
  const directory = scope.use(await BenchDirectory.create());
  const options = { name: 'store', swarm: false, cache_max_bytes: 2 ** 40 };
  const daemon = scope.use(await BenchDaemon.start(directory, options));
  const calls = scope.use(new ContentCalls(daemon.socket));
  const work = { ...context, directory: directory.path, calls };
  return [
    ...(await endings(work, { name: '64 KiB', bytes: 64 * KIB, runs: context.quick ? 40 : 200 })),
    ...(await endings(work, { name: '64 MiB', bytes: 64 * MIB, runs: context.quick ? 5 : 15 })),
    ...(await restores(work)),
  ];
}

type Work = BenchContext & { readonly directory: string; readonly calls: ContentCalls };

/** The end of a blob, whose size was told at first or was not, and of a file written by hand in the same directory. */
async function endings(
  { calls, directory, note }: Work,
  { name, bytes, runs }: { name: string; bytes: number; runs: number },
): Promise<Row[]> {
  const files: number[] = [];
  const found: Record<Way, Ending[]> = { sized: [], unsized: [] };
  for (let run = 0; run < runs; run++) {
    // They take turns, so that a busy disk hits all of them.
    files.push(await plainFile(join(directory, 'plain'), randomBytes(bytes)));
    found.sized.push(await written(calls, 'sized', randomBytes(bytes)));
    found.unsized.push(await written(calls, 'unsized', randomBytes(bytes)));
  }
  const plain = { name: 'the same by hand', value: median(files) };
  note(`store: ${runs} blobs of ${name}; by hand ${plain.value.toFixed(1)} ms`);
  const rows = [
    row(
      `${name} file by hand: its last ${endOf(bytes)}, fsync, rename, fsync of the directory`,
      plain.value,
      'ms',
    ),
  ];
  for (const [way, endings] of Object.entries(found)) {
    const what = `${name} ${way === 'sized' ? 'blob, published before COMMIT' : 'blob of unknown size, published in COMMIT'}`;
    const writes = endings.map((e) => e.last_write_ms);
    const commits = endings.map((e) => e.commit_ms);
    rows.push(
      row(`${what}: last WRITE, p50`, median(writes), 'ms', { against: plain }),
      row(`${what}: COMMIT, p50`, median(commits), 'ms', { against: plain }),
      row(`${what}: COMMIT, p99`, quantile(commits, 0.99), 'ms'),
    );
  }
  return rows;
}

const endOf = (bytes: number): string => (bytes > MESSAGE_BYTES ? '1 MiB' : 'write');

/** From the last write to a name that survives a power cut (fsync, rename, fsync of the directory), in ms. */
async function plainFile(path: string, data: Buffer): Promise<number> {
  let started = performance.now();
  {
    await using file = await open(path, 'wx');
    for (let at = 0; at < data.length; at += MESSAGE_BYTES) {
      started = performance.now();
      await file.write(data.subarray(at, at + MESSAGE_BYTES));
    }
    await file.sync();
  }
  await rename(path, `${path}.done`);
  {
    await using directory = await open(dirname(path), 'r');
    await directory.sync();
  }
  const took_ms = performance.now() - started;
  await rm(`${path}.done`);
  return took_ms;
}

async function written(calls: ContentCalls, way: Way, data: Buffer): Promise<Ending> {
  const digest = digestOf(data);
  const ref = way === 'sized' ? layerRef({ digest }) : `default/1/upload-${randomUUID()}`;
  const write = calls.write();
  const total = data.length;
  await write.ask({ action: 'STAT', ref, total: way === 'sized' ? total : 0 });
  let last_write_ms = Number.NaN;
  for (let offset = 0; offset < total; offset += MESSAGE_BYTES) {
    const part = data.subarray(offset, offset + MESSAGE_BYTES);
    const started = performance.now();
    await write.ask({ action: 'WRITE', offset, data: part });
    last_write_ms = performance.now() - started;
  }
  const started = performance.now();
  await write.ask({ action: 'COMMIT', offset: total, total, expected: digest });
  const commit_ms = performance.now() - started;
  await write.end();
  return { last_write_ms, commit_ms };
}

/** A blob that containerd deleted and asks for again: from its first STAT to the answer of the second, when it is under `blobs/` again. */
async function restores({ calls, directory, quick, note }: Work): Promise<Row[]> {
  const rows: Row[] = [];
  for (const mib of [1, quick ? 128 : 512]) {
    const blob = await makeBlob(directory, mib * MIB);
    await upload(calls, blob);
    const times: number[] = [];
    const hashes: number[] = [];
    for (let run = 0; run < (quick ? 5 : 15); run++) {
      await calls.unary('Delete', { digest: blob.digest });
      hashes.push(await hashed(blob));
      const started = performance.now();
      await calls.pull(blob, { onBytes: () => times.push(performance.now() - started) });
    }
    const mb = blob.size_bytes / 1e6;
    note(`store: ${mib} MiB came back from the cache in ${median(times).toFixed(0)} ms`);
    const name = `${mib} MiB blob back from the cache (hashed again, published)`;
    rows.push(
      row(name, median(times), 'ms', {
        against: { name: 'reading and hashing it', value: median(hashes) },
      }),
    );
    if (mib > 1) rows.push(row(`${name}, per MB`, median(times) / mb, 'ms'));
  }
  return rows;
}

/** Brings a blob into the store. */
async function upload(calls: ContentCalls, blob: BlobFile): Promise<void> {
  const write = calls.write();
  const total = blob.size_bytes;
  await write.ask({ action: 'STAT', ref: `default/1/upload-${randomUUID()}`, total });
  await using file = await open(blob.path, 'r');
  for (let offset = 0; offset < total; ) {
    const { buffer, bytesRead } = await file.read(
      Buffer.alloc(MESSAGE_BYTES),
      0,
      undefined,
      offset,
    );
    await write.ask({ action: 'WRITE', offset, data: buffer.subarray(0, bytesRead) });
    offset += bytesRead;
  }
  await write.ask({ action: 'COMMIT', offset: total, total, expected: blob.digest });
  await write.end();
}

/** What the verification alone takes at the least, in ms: the file read in steps of 1 MiB and hashed. */
async function hashed({ path }: BlobFile): Promise<number> {
  const started = performance.now();
  const hash = createHash('sha256');
  await using file = await open(path, 'r');
  const buffer = Buffer.alloc(MESSAGE_BYTES);
  for (;;) {
    const { bytesRead } = await file.read(buffer, 0, buffer.length, null);
    if (bytesRead === 0) return performance.now() - started;
    hash.update(buffer.subarray(0, bytesRead));
  }
}

function digestOf(data: Uint8Array): Digest {
  return `sha256:${createHash('sha256').update(data).digest('hex')}` as Digest;
}
